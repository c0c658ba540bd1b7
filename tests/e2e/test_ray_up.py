"""`ray up cluster.yaml` over SSH to three machines, jobs from a fourth, and the end of it: what docs/cluster.md says, done."""

import subprocess
import time
from collections.abc import Iterator

import pytest
import yaml
from machines import ROOT, Machines, missing

from deepred_ray.runs import Run

UP_S, JOIN_S, JOB_S = 400, 300, 400
ARGUMENTS = {"node1": "--num-cpus=0", "node2": "--num-cpus=2", "node3": '--num-cpus=2 --resources={"big":1}'}
SERVER = "http://127.0.0.1:8265"

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing()), reason=f"other machines cannot be made here: no {missing()}"),
]


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """A head without CPUs and two workers, set up as cluster.yaml wants them, and a tunnel from the laptop to the dashboard."""
    with Machines(3) as made:
        (made.folder / "runs").mkdir()
        for name, arguments in ARGUMENTS.items():
            (made.home(name) / "deepred_ray").symlink_to(ROOT)
            settings = [f"DEEPRED_RAY_ARGS='--object-store-memory=200000000 {arguments}'", f"GUTENBERG_DATA={made.folder}/runs"]
            (made.home(name) / "deepred.env").write_text("\n".join([*settings, "HF_HUB_OFFLINE=1", ""]))
        cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
        head, *workers = made.addresses.values()
        cluster["provider"] |= {"head_ip": head, "worker_ips": workers}
        cluster["auth"]["ssh_user"] = "root"
        (made.home("laptop") / "cluster.yaml").write_text(yaml.safe_dump(cluster, sort_keys=False))
        run(made, "ray get-auth-token --generate", 60)
        run(made, "ray up --yes --no-config-cache cluster.yaml", UP_S)
        words = f"ssh -N -L 8265:127.0.0.1:8265 -o StrictHostKeyChecking=no {head}"
        tunnel = subprocess.Popen(made.inside("laptop", words.split(), "true"), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield made
        finally:
            tunnel.kill()
            tunnel.wait()


def run(machines: Machines, command: str, timeout: float) -> str:
    """What a command on the laptop prints. It must end well within `timeout` seconds."""
    done = machines.on_laptop(f"export RAY_AUTH_MODE=token; {command}", timeout)
    assert done.returncode == 0, done.stdout
    return done.stdout


def submit(machines: Machines, command: str, *options: str) -> str:
    """What `ray job submit` of a command prints, sent as the docs say."""
    words = f"--address {SERVER} --entrypoint-num-cpus=0.1 --working-dir . {' '.join(options)}"
    return run(machines, f"cd {ROOT} && ray job submit {words} -- {command}", JOB_S)


def test_all_machines_join_and_the_head_gives_out_no_cpu(machines: Machines) -> None:
    deadline = time.monotonic() + JOIN_S
    status = ""
    while "3 local.cluster.node" not in status:
        assert time.monotonic() < deadline, status
        status = machines.ssh("node1", "RAY_AUTH_MODE=token deepred_ray/.venv/bin/ray status").stdout
        time.sleep(1)
    assert "/4.0 CPU" in status
    assert "/1.0 big" in status


def test_the_dashboard_is_on_loopback_and_wants_the_token(machines: Machines) -> None:
    head = machines.addresses["node1"]
    code = "curl -s -o /dev/null -m 10 -w '%{http_code}'"
    direct = machines.on_laptop(f"{code} http://{head}:8265/api/jobs/", 30)
    assert (direct.returncode, direct.stdout) == (7, "000")  # refused
    assert machines.on_laptop(f"{code} {SERVER}/api/jobs/", 30).stdout == "401"
    token = '-H "Authorization: Bearer $(cat ~/.ray/auth_token)"'
    assert machines.on_laptop(f"{code} {token} {SERVER}/api/jobs/", 30).stdout == "200"


def test_the_doctor_finds_nodes_alike_and_one_data_root(machines: Machines) -> None:
    words = submit(machines, "python jobs/doctor.py || true")
    assert f"{machines.folder}/runs is the same on 3 nodes" in words
    assert "Python, packages and code of 3 nodes" in words
    assert all(address in words for address in machines.addresses.values())


def test_stages_submitted_from_the_laptop_run_off_the_head(machines: Machines) -> None:
    submit(machines, "python jobs/acquire.py --run up --mirror sample --ids 900001 900003 900004 --delay 0")
    submit(machines, "python jobs/corpus.py --run up --min-matches 1", "--no-wait", "--submission-id=corpus")
    assert "run up in" in run(machines, f"ray job logs --address {SERVER} --follow corpus", JOB_S)
    assert "Job 'corpus' succeeded" in run(machines, f"ray job status --address {SERVER} corpus", 60)
    made = Run(f"{machines.folder}/runs", "up")
    assert made.manifest("acquire").kept == 3
    assert made.manifest("corpus").kept > 0
    question = (
        "from ray.job_submission import JobSubmissionClient as C; "
        f"print(*(job.driver_info.node_ip_address for job in C('{SERVER}').list_jobs() if job.driver_info))"
    )
    drivers = set(run(machines, f'python -c "{question}"', 60).split())
    assert drivers
    assert drivers <= {machines.addresses["node2"], machines.addresses["node3"]}


def test_changed_code_can_travel_with_a_job(machines: Machines) -> None:
    question = "import deepred_ray; print('code in', deepred_ray.__file__)"
    assert "/py_modules_files/" in submit(
        machines, f'python -c "{question}"', "--runtime-env-json", '\'{"py_modules": ["deepred_ray"]}\''
    )
    assert f"code in {ROOT}/" in submit(machines, f'python -c "{question}"')


def test_workers_end_after_the_head(machines: Machines) -> None:
    assert raylets(machines) == list(ARGUMENTS)
    run(machines, "ray exec --no-config-cache cluster.yaml '~/deepred_ray/.venv/bin/ray stop'", UP_S)
    assert "node1" not in raylets(machines)
    deadline = time.monotonic() + JOIN_S
    while left := raylets(machines):
        assert time.monotonic() < deadline, left
        time.sleep(1)


def raylets(machines: Machines) -> list[str]:
    """The machines on which Ray runs."""
    return [name for name in ARGUMENTS if machines.ssh(name, "pgrep -x raylet").returncode == 0]
