"""The pictures of a data card and of a training, as PNG bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

PLAIN, SECOND, MARKED = "#7a8ba3", "#d4a017", "#c0392b"
MOST_BARS = 24


def bars(title: str, counts: Mapping[str, int], unit: str) -> bytes:
    """One bar for each name, the largest on top and `accepted` in another colour; what exceeds two dozen is added up."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if len(ordered) > MOST_BARS:
        rest = ordered[MOST_BARS - 1 :]
        ordered = [*ordered[: MOST_BARS - 1], (f"{len(rest)} others", sum(count for _, count in rest))]
    total = sum(counts.values()) or 1
    figure, axes = canvas(9, 1.2 + 0.32 * len(ordered))
    names = [name for name, _ in ordered]
    drawn = axes.barh(names, [count for _, count in ordered], color=[MARKED if name == "accepted" else PLAIN for name in names])
    axes.bar_label(drawn, labels=[f" {count:,} ({count / total:.1%})" for _, count in ordered], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(title=f"{title} ({total:,})", xlabel=unit)
    return png(figure)


def histograms(title: str, values: Mapping[str, Sequence[int]], unit: str) -> bytes:
    """A panel for each name with the distribution of its values, the median marked."""
    figure, panels = canvas(5 * len(values), 3.6, columns=len(values))
    figure.suptitle(title)
    for axes, (name, numbers) in zip(panels, values.items(), strict=True):
        median = sorted(numbers)[len(numbers) // 2]
        axes.hist(numbers, bins=min(30, max(numbers) - min(numbers) + 1), color=PLAIN)
        axes.axvline(median, color=MARKED, linestyle="--", label=f"median {median}")
        axes.set(title=f"{name} ({len(numbers):,})", xlabel=unit, ylabel="count")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return png(figure)


def losses(title: str, training: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]]) -> bytes:
    """Loss in nats a token by optimizer step, with the step of the lowest validation loss; `validation` may be empty."""
    figure, axes = canvas(8, 4.2)
    axes.plot(*zip(*training, strict=True), color=PLAIN, linewidth=1.4, label="training")
    if validation:
        step, lowest = min(validation, key=lambda point: point[1])
        axes.plot(*zip(*validation, strict=True), "o-", color=MARKED, linewidth=1.4, markersize=4, label="validation")
        axes.axvline(step, color=MARKED, linestyle=":", label=f"lowest: {lowest:.3f} at step {step}")
    axes.set(title=title, xlabel="optimizer step", ylabel="nats a token")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return png(figure)


def canvas(width: float, height: float, columns: int = 0) -> tuple[Any, Any]:
    """A figure of inches, with one panel, or a row of `columns`."""
    # A second to import, and only here of use. Without pyplot, there is no global state and no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0] if columns else figure.subplots()


def png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
