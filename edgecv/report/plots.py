"""The page's charts: Vega-Lite specs, rendered to static SVG that takes the page's colours.

vl-convert renders without a browser, and its text is measured with fonts that it carries, so the
same data give the same bytes. Charts are drawn in stand-in colours, which become the page's CSS
variables: one drawing serves light, dark and paper.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edgecv.errors import missing
from edgecv.report import words
from edgecv.report.folder import Row

Spec = dict[str, Any]

# Stand-in colour -> CSS variable of style.css.
COLOURS = {
    "#fe0100": "--ink", "#fe0200": "--soft", "#fe0300": "--rule", "#fe0400": "--paper",
    "#fe0500": "--won", "#fe0600": "--lost", **{f"#fe10{i:02x}": f"--c{i}" for i in range(7)},
}  # fmt: skip
INK, SOFT, RULE, PAPER, WON, LOST = list(COLOURS)[:6]
SERIES = list(COLOURS)[6:]  # the first is the float network's
WIDTH, HEIGHT = 286, 190
FONT = "Liberation Sans"  # what vl-convert carries; the page sets its own

CONFIG: Spec = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": SOFT, "titleColor": SOFT, "gridColor": RULE, "domainColor": RULE,
        "tickColor": RULE, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal",
        "labelFontWeight": "normal", "titlePadding": 8, "gridOpacity": 0.6, "labelPadding": 4,
        "labelFlush": False,
    },
    "text": {"color": INK, "fontSize": 12},
}  # fmt: skip


def render(spec: Spec, label: str) -> str:
    """The chart as an <svg> element whose accessible name is `label`. Text in it is escaped.

    Raises MissingExtraError.
    """
    try:
        import vl_convert
    except ImportError:
        raise missing("vl-convert-python", "report", "edgecv report") from None
    from markupsafe import escape

    full = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "config": CONFIG,
        "padding": {"left": 2, "top": 6, "right": 10, "bottom": 2},
        **spec,
    }
    # `<` and `>` of labels are escaped, so that this finds tags and nothing else.
    svg = re.sub(r"<[^>]*>", _tag, str(vl_convert.vegalite_to_svg(full)))
    head = f'<svg role="img" aria-label="{escape(label)}"'
    return svg.replace("<svg", head, 1)


def _tag(match: re.Match[str]) -> str:
    """A tag in the page's colours, and without names of its own.

    The chart is one picture with one name; what its marks stand for is in a table of the page.
    """
    tag = re.sub(r' (?:role|aria-[a-z]+|font-family)="[^"]*"', "", match[0])
    return re.sub(r'(fill|stroke)="(#fe\w{4})"', _variable, tag)


def _variable(match: re.Match[str]) -> str:
    return f'{match[1]}="var({COLOURS[match[2]]})"' if match[2] in COLOURS else match[0]


def series(rows: Sequence[Row]) -> dict[str, int]:
    """Step -> number of its colour: 0 for references, then in order of appearance."""
    found = {r["step"]: 0 for r in rows if r["is_reference"]}
    others = dict.fromkeys(r["step"] for r in rows if r["step"] not in found)
    return found | {step: 1 + i % (len(SERIES) - 1) for i, step in enumerate(others)}


def time_chart(rows: Sequence[Row], colours: dict[str, int], domain: Sequence[float]) -> Spec:
    """The metric against time relative to float, with intervals and the Pareto front."""
    points = [_point(r, "latency_ratio", r["spread"]) for r in rows if r.get("latency_ratio")]
    return _accuracy_chart(points, colours, domain, "time relative to fp32", judged_in(rows))


def size_chart(rows: Sequence[Row], colours: dict[str, int], domain: Sequence[float]) -> Spec:
    """The metric against the size of the engine's files."""
    known = [r for r in rows if r.get("engine_bytes")]
    unit, name = _unit(max((r["engine_bytes"] for r in known), default=0))
    points = [_point({**r, "size": r["engine_bytes"] / unit}, "size", None) for r in known]
    for point in points:
        point["on_front"] = False
    return _accuracy_chart(points, colours, domain, f"size, {name}", judged_in(rows))


def judged_in(rows: Sequence[Row]) -> str:
    """How the metric of these rows is called."""
    return str(rows[0].get("judged_in", "top-1")) if rows else "top-1"


def _unit(most: float) -> tuple[int, str]:
    return (1024**2, "MB") if most >= 4 * 1024**2 else (1024, "KB")


def domain(rows: Sequence[Row]) -> list[float]:
    """The span of the metric in percent that holds every interval."""
    ends = [100 * v for r in rows if r["value_interval"] for v in r["value_interval"]]
    ends += [100 * r["value"] for r in rows if r["value"] is not None]
    low, high = min(ends, default=0.0), max(ends, default=100.0)
    pad = max(0.2, 0.08 * (high - low))
    return [max(0.0, low - pad), min(100.0, high + pad)]


def _point(row: Row, key: str, spread: Sequence[float] | None) -> dict[str, Any]:
    low, high = row["value_interval"] or (row["value"], row["value"])
    x = row[key]
    near, far = spread or (x, x)
    return {
        "step": row["step"], "precision": row["precision"], "x": x, "x0": near, "x1": far,
        "y": 100 * row["value"], "y0": 100 * low, "y1": 100 * high,
        "on_front": bool(row.get("on_front")), "reference": row["is_reference"],
    }  # fmt: skip


def _accuracy_chart(
    points: list[dict[str, Any]],
    colours: dict[str, int],
    span: Sequence[float],
    title: str,
    metric: str,
) -> Spec:
    most = 1.08 * max((p["x1"] for p in points), default=1.0)
    for point in points:  # names to the side that has room
        point["left"] = point["x"] > 0.6 * most
    steps = list(dict.fromkeys(p["step"] for p in points))
    colour = {
        "field": "step", "type": "nominal", "legend": None,
        "scale": {"domain": steps, "range": [SERIES[colours[s]] for s in steps]},
    }  # fmt: skip
    size = {"condition": {"test": "datum.precision == 'fp32'", "value": 130}, "value": 90}
    shape = {
        "field": "precision", "type": "nominal", "legend": None,
        "scale": {"domain": ["fp32", "int8"], "range": ["diamond", "circle"]},
    }  # fmt: skip
    x = {
        "field": "x", "type": "quantitative", "title": title,
        "scale": {"domain": [0, most], "nice": False, "zero": True}, "axis": {"tickCount": 5},
    }  # fmt: skip
    y = {
        "field": "y", "type": "quantitative", "title": f"{metric}, %",
        "scale": {"domain": list(span), "nice": False, "zero": False}, "axis": {"tickCount": 5},
    }  # fmt: skip
    layers: list[Spec] = [_front(x, y)]
    bar = {"type": "rule", "strokeWidth": 1.5, "opacity": 0.75}
    layers += [
        {"mark": bar, "encoding": {"x": x, "y": {**y, "field": "y0"}, "y2": {"field": "y1"},
                                   "color": colour}},
        {"mark": bar, "encoding": {"x": {**x, "field": "x0"}, "x2": {"field": "x1"}, "y": y,
                                   "color": colour}},
        {"mark": {"type": "point", "filled": True, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "size": size}},
    ]  # fmt: skip
    # Names lie over bars and lines: the first of each pair is a rim of the ground's colour.
    layers += [_names(left, rim, x, y) for left in (False, True) for rim in (True, False)]
    return {"width": WIDTH, "height": HEIGHT, "data": {"values": points}, "layer": layers}


def _front(x: Spec, y: Spec) -> Spec:
    return {
        "transform": [{"filter": "datum.on_front"}],
        "mark": {"type": "line", "interpolate": "step-after", "color": SOFT, "strokeWidth": 1.25,
                 "strokeDash": [4, 3]},
        "encoding": {"x": x, "y": y, "order": {"field": "x", "type": "quantitative"}},
    }  # fmt: skip


def _names(left: bool, rim: bool, x: Spec, y: Spec) -> Spec:
    mark: Spec = {
        "type": "text", "align": "right" if left else "left", "dx": -8 if left else 8, "dy": -8,
        "color": INK, "fontSize": 12, "limit": 150,
    }  # fmt: skip
    if rim:
        mark |= {"color": PAPER, "stroke": PAPER, "strokeWidth": 4, "strokeJoin": "round"}
    return {
        "transform": [{"filter": "datum.left" if left else "!datum.left"}],
        "mark": mark,
        "encoding": {"x": x, "y": y, "text": {"field": "step"}},
    }


def classes_chart(classes: Sequence[dict[str, Any]]) -> Spec:
    """Images of each class that only the one or only the other network got right."""
    values = []
    for c in classes:
        values.append({"label": c["label"], "kind": "lost", "n": -c["lost"], "text": c["lost"]})
        values.append({"label": c["label"], "kind": "won", "n": c["won"], "text": c["won"]})
    y = _labels([c["label"] for c in classes])
    most = max((abs(v["n"]) for v in values), default=1) * 1.25
    x = {"field": "n", "type": "quantitative", "axis": None, "scale": {"domain": [-most, most]}}
    colour = {"field": "kind", "type": "nominal", "legend": None,
              "scale": {"domain": ["lost", "won"], "range": [LOST, WON]}}  # fmt: skip
    bars: Spec = {"mark": {"type": "bar", "height": 11},
                  "encoding": {"x": x, "y": y, "color": colour}}  # fmt: skip
    layers = [bars, *(_counts(kind, x, y) for kind in ("lost", "won"))]
    return {"width": 220, "height": {"step": 21}, "data": {"values": values}, "layer": layers}


def _labels(labels: Sequence[str]) -> Spec:
    """Classes below one another, in this order."""
    axis = {"labelLimit": 110, "labelColor": INK, "ticks": False, "domain": False}
    return {"field": "label", "type": "nominal", "title": None, "sort": labels, "axis": axis}


def _counts(kind: str, x: Spec, y: Spec) -> Spec:
    side = {"align": "right", "dx": -4} if kind == "lost" else {"align": "left", "dx": 4}
    return {
        "transform": [{"filter": f"datum.kind == '{kind}' && datum.n != 0"}],
        "mark": {"type": "text", "fontSize": 11, "color": SOFT, **side},
        "encoding": {"x": x, "y": y, "text": {"field": "text"}},
    }


def changes_chart(rows: Sequence[dict[str, Any]]) -> Spec:
    """By how many points a metric of each class changed (`edgecv.report.found.by_class`)."""
    values = [
        {"label": r["label"], "n": 100 * r["change"], "text": words.signed(100 * r["change"], 1),
         "kind": "lost" if r["change"] < 0 else "won"}
        for r in rows
    ]  # fmt: skip
    y = _labels([r["label"] for r in rows])
    most = 2 * max((abs(v["n"]) for v in values), default=1) or 1
    x = {"field": "n", "type": "quantitative", "title": "points",
         "axis": {"tickCount": 5}, "scale": {"domain": [-most, most], "nice": False}}  # fmt: skip
    colour = {"field": "kind", "type": "nominal", "legend": None,
              "scale": {"domain": ["lost", "won"], "range": [LOST, WON]}}  # fmt: skip
    bars: Spec = {"mark": {"type": "bar", "height": 11},
                  "encoding": {"x": x, "y": y, "color": colour}}  # fmt: skip
    layers = [bars, *(_counts(kind, x, y) for kind in ("lost", "won"))]
    return {"width": 220, "height": {"step": 21}, "data": {"values": values}, "layer": layers}


def curves_chart(curves: dict[str, Sequence[float]], colours: dict[str, int]) -> Spec:
    """Precision against recall of each step, the mean over classes.

    curves:  step -> precision in 0..1 at recalls evenly spread over 0..1
    colours: as `series` gives them
    """
    values = [
        {"step": step, "x": i / (len(curve) - 1), "y": float(precision)}
        for step, curve in curves.items()
        for i, precision in enumerate(curve)
    ]
    unit = {"domain": [0, 1], "nice": False}
    x = {"field": "x", "type": "quantitative", "title": "recall", "scale": unit,
         "axis": {"tickCount": 5}}  # fmt: skip
    y = {"field": "y", "type": "quantitative", "title": "precision", "scale": unit,
         "axis": {"tickCount": 5}}  # fmt: skip
    steps = list(curves)
    colour = {
        "field": "step", "type": "nominal",
        "legend": {"title": None, "orient": "bottom", "labelColor": INK, "symbolType": "stroke",
                   "direction": "vertical", "labelLimit": 240},
        "scale": {"domain": steps, "range": [SERIES[colours[s]] for s in steps]},
    }  # fmt: skip
    mark = {"type": "line", "strokeWidth": 1.75, "interpolate": "linear"}
    return {"width": WIDTH, "height": HEIGHT, "data": {"values": values}, "mark": mark,
            "encoding": {"x": x, "y": y, "color": colour}}  # fmt: skip
