"""What the doctor concludes from what the nodes of a cluster tell."""

from pathlib import Path

from deepred_ray import doctor_cluster
from deepred_ray.checks import Check

SAME = {"python": "3.12.3", "ray": "2.60.0", "torch": "2.13.0"}


def test_nodes_are_named_by_host_and_apart_where_they_share_one() -> None:
    names = doctor_cluster.name_nodes({"aaaaaaaa": "a", "bbbbbbbb": "b", "cccccccc": "b"})
    assert names == {"aaaaaaaa": "a", "bbbbbbbb": "b/bbbbbb", "cccccccc": "b/cccccc"}


def test_the_same_versions_everywhere_are_one_line_whatever_the_build() -> None:
    [check] = doctor_cluster.compare_versions({"a": SAME, "b": SAME | {"torch": "2.13.0+rocm7.2"}})
    assert check.ok
    assert "2 nodes" in check.found


def test_each_skewed_name_is_a_line_that_tells_who_has_what() -> None:
    older = SAME | {"python": "3.11.7"}
    del older["ray"]
    checks = doctor_cluster.compare_versions({"b": SAME, "a": SAME, "c": older})
    assert [check.found for check in checks] == ["python: 3.11.7 on c; 3.12.3 on a, b", "ray: 2.60.0 on a, b; missing on c"]
    assert not any(check.ok for check in checks)
    assert all(check.cure for check in checks)


def test_lines_of_several_nodes_become_one() -> None:
    good, full = Check("disk", True, "9 GiB"), Check("disk", False, "full", "Make room.")
    checks = doctor_cluster.merge({"a": [good], "b": [full], "c": [good]})
    assert checks == [Check("disk", True, "9 GiB (a, c)"), Check("disk", False, "full (b)", "Make room.")]
    assert doctor_cluster.merge({"a": [good], "b": [good]}) == [Check("disk", True, "9 GiB (all 2 nodes)")]


def test_accelerators_that_ray_does_not_count_are_told() -> None:
    check = doctor_cluster.check_counted({"a": (2, 2.0), "b": (4, 0), "c": (0, 0)})
    assert check.ok
    assert "none of those of b (4)" in check.found
    assert "--num-gpus" in check.cure
    check = doctor_cluster.check_counted({"a": (2, 2.0), "c": (0, 0)})
    assert (check.cure, check.found) == ("", "Ray counts 2, on 1 of 2 nodes")


def test_the_digest_of_the_code_sees_every_file_but_compiled_ones(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "a.py").write_text("x = 1", "utf-8")
    first = doctor_cluster.code_digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    assert doctor_cluster.code_digest(tmp_path) == first
    (tmp_path / "data" / "terms.tsv").write_text("red", "utf-8")
    assert doctor_cluster.code_digest(tmp_path) != first


def test_a_data_root_that_the_driver_cannot_write_is_told() -> None:
    check = doctor_cluster.check_shared_root("/proc/runs", {})
    assert (check.name, check.ok) == ("data root", False)
    assert check.found.startswith("cannot write /proc/runs/.deepred-doctor-")
    assert "--data-root" in check.cure
