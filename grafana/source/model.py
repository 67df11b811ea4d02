"""What the three dashboards share: PromQL by the selected instances, panels, and the page that holds them.

In: panels in rows, as `bot`, `sidecar` and `fleet` list them. Out: Grafana's classic JSON, as a dictionary.
Always: every panel has a unit, a title and a description; panels fill their row from the left and wrap at 24 columns;
ids are given in reading order, so that a change to one panel leaves the others' text alone where it can.
"""

# --- PromQL ---------------------------------------------------------------------------------------------------------

INSTANCES = 'job=~"$job", instance=~"$instance"'


def of(name, labels=""):
    """The series of a name in the selected instances."""
    return f"{name}{{{INSTANCES}{', ' if labels else ''}{labels}}}"


def rate(name, by="", labels=""):
    """Per second, summed, kept apart by these labels."""
    return f"sum{by_(by)}(rate({of(name, labels)}[$__rate_interval]))"


def by_(labels):
    return f" by ({labels}) " if labels else ""


def quantile(q, name, by="", labels=""):
    """A quantile from the classic histogram or, where Prometheus keeps the native one alone, from that."""
    classic = rate(f"{name}_bucket", f"le, {by}" if by else "le", labels)
    return f"histogram_quantile({q}, {classic}) or histogram_quantile({q}, {rate(name, by, labels)})"


def heat(name, labels=""):
    """What a heatmap draws. `on ()`: the native one only if there are no classic buckets at all."""
    return f"{rate(f'{name}_bucket', 'le', labels)} or on () {rate(name, '', labels)}"


def those_above_0(per_second, label):
    """Only what happens, or one line "none" while nothing does: eighteen lines at 0 hide the one that matters."""
    kept, all_of_it = per_second, per_second.replace(f" by ({label}) ", "", 1)
    return f'({kept} > 0) or label_replace(({all_of_it}) == 0, "{label}", "none", "", "")'


def named(label, expression):
    """A limit takes a label away from new series; what they add up to gets a name in the legend."""
    return f'label_replace({expression}, "{label}", "(at a limit)", "{label}", "")'


def share(part, whole):
    """0 where the whole is there and the part never was (a counter begins with its first increment)."""
    return f"({part} or 0 * {whole}) / {whole}"


def share_of(name, label, matcher, by="", labels=""):
    """The share of a counter where a label matches, among the series that have it: a limit takes it from some."""
    part, whole = (rate(name, by, f"{labels}{', ' if labels else ''}{label}{rest}") for rest in (matcher, '!=""'))
    return share(part, whole)


def of_sidecars(expression):
    """Of all that has a job and an instance (`up`, `process_*`), what belongs to sidecars."""
    return f"({expression} and on (job, instance) {of('statsieve_build_info')})"


# `up` of every instance of the jobs that run sidecars, or did within the time shown: one that is down has no metric of
# its own to be known by.
UP = f'({of("up")} and on (job) last_over_time(statsieve_build_info{{job=~"$job"}}[$__range]))'

LOSS = 'reason!~"sampled|mapping_drop"'
LOST = rate("statsieve_samples_dropped_total", labels=LOSS)
LOST_RATIO = f"{LOST} / ({LOST} + {rate('statsieve_samples_recorded_total')})"

# --- Thresholds: the targets that the alerts are set to as well -----------------------------------------------------

GREEN, YELLOW, RED, BLUE, TEXT = "green", "yellow", "red", "blue", "text"


def steps(first, *rest):
    """Colours: the first from the bottom, each other from its value on."""
    colours = [{"color": first, "value": None}] + [{"color": colour, "value": value} for value, colour in rest]
    return {"mode": "absolute", "steps": colours}


NEUTRAL = steps(TEXT)
ANY_IS_BAD = steps(GREEN, (0.000001, RED))
ANY_IS_ODD = steps(GREEN, (0.000001, YELLOW))
LOST_AT = steps(GREEN, (0.0001, YELLOW), (0.001, RED))
HIT_RATE = steps(RED, (0.9, GREEN))
QUEUE = steps(GREEN, (750, YELLOW), (1000, RED))
REPLY = steps(GREEN, (1.5, YELLOW), (2, RED))
ERRORS = steps(GREEN, (0.0005, YELLOW), (0.001, RED))
IDENTITY = steps(RED, (0.99, GREEN))
SAMPLING = steps(RED, (0.5, YELLOW), (1, GREEN))
FILL = steps(GREEN, (0.8, YELLOW), (1, RED))
INGEST_AT = steps(GREEN, (0.005, YELLOW), (0.01, RED))
MEMORY = steps(GREEN, (1.5e9, YELLOW), (2e9, RED))
AVAILABLE = steps(RED, (0.999, GREEN))

# --- Panels ---------------------------------------------------------------------------------------------------------

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(kind, title, description, unit, queries, size, thresholds=NEUTRAL, options=None, custom=None, **more):
    """One panel. `queries` is an expression, or pairs of an expression and its legend. `size`: columns, rows."""
    field = {"unit": unit, "thresholds": thresholds, "color": {"mode": more.pop("colour", "palette-classic")}}
    field.update({"custom": custom or {}, "mappings": more.pop("mappings", [])})
    for key in ("min", "max", "decimals", "noValue", "links"):
        if key in more:
            field[key] = more.pop(key)
    target = {"instant": False, "range": True, "format": "time_series", **more.pop("target", {})}
    pairs = [(queries, title)] if isinstance(queries, str) else queries
    targets = [
        {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expression, "legendFormat": legend, **target}
        for number, (expression, legend) in enumerate(pairs)
    ]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": field, "overrides": more.pop("overrides", [])},
        "options": options or {},
        "size": size,
        **more,
    }


def stat(title, description, unit, queries, thresholds=NEUTRAL, **more):
    """A figure on the colour of its state.

    Asked for as of now and not over the time shown: of a sidecar that is gone, the last value of a curve would go on
    saying that all is well.
    """
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
        "textMode": "value" if isinstance(queries, str) else "value_and_name",
        "justifyMode": "auto",
        "wideLayout": True,
        "colorMode": "value" if thresholds is NEUTRAL else "background_solid",
        "graphMode": "none",
    }
    more = {"colour": "thresholds", "target": {"instant": True, "range": False}, **more}
    return panel("stat", title, description, unit, queries, (3, 4), thresholds, options, **more)


def graph(title, description, unit, queries, size=(8, 8), thresholds=None, stacked=False, **more):
    """Lines over time; thresholds are drawn as dashed lines."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 35 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "axisPlacement": "auto",
        "axisSoftMin": more.pop("soft_min", 0),
        # Or an axis of zeros alone would go up to 100.
        "axisSoftMax": more.pop("soft_max", {"percentunit": 0.001, "s": 0.001, "cps": 0.1}.get(unit, 1)),
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if thresholds else "off"},
    }
    options = {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, description, unit, queries, size, thresholds or NEUTRAL, options, custom, **more)


def heatmap(title, description, name, size=(12, 8), labels=""):
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
        "yAxis": {"unit": "s", "axisPlacement": "left"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False},
    }
    target = {"format": "heatmap"}
    return panel(
        "heatmap", title, description, "s", [(heat(name, labels), "{{le}}")], size, options=options, target=target
    )


def bars(title, description, unit, queries, size=(8, 8), thresholds=NEUTRAL, **more):
    """A bar for each series, as it is now."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "gradient",
        "valueMode": "color",
        "showUnfilled": True,
        "minVizHeight": 10,
        "maxVizHeight": 28,
        "namePlacement": "auto",
        "sizing": "auto",
    }
    colour = "continuous-BlPu" if thresholds is NEUTRAL else "thresholds"
    target = {"instant": True, "range": False}
    return panel(
        "bargauge",
        title,
        description,
        unit,
        queries,
        size,
        thresholds,
        options,
        colour=colour,
        target=target,
        **{"min": 0, **more},
    )


def table(title, description, queries, columns, size=(12, 8), units=None, mappings=None):
    """Labels and values as they are now, of all queries joined by the labels they share.

    `columns`: what becomes of each column, in order, by its name ("Value #A" is the first query's value); others are
    left out. `units` and `mappings` are by the new names.
    """
    pairs = [(expression, "") for expression in queries]
    hidden = {
        "Time": True,
        **{f"Value #{chr(ord('A') + number)}": True for number in range(len(queries))},
        "Value": True,
    }
    organize = {
        "excludeByName": {name: True for name in hidden if name not in columns},
        "indexByName": {name: number for number, name in enumerate(columns)},
        "renameByName": columns,
    }
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
        for name, unit in (units or {}).items()
    ] + [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [
                {"id": "mappings", "value": mapping},
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            ],
        }
        for name, mapping in (mappings or {}).items()
    ]
    return panel(
        "table",
        title,
        description,
        "none",
        pairs,
        size,
        custom={"align": "auto", "filterable": True},
        options={"showHeader": True, "cellHeight": "sm"},
        target={"instant": True, "range": False, "format": "table"},
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
        overrides=overrides,
    )


def words(*pairs):
    """Value mappings: a value, its word, its colour."""
    return [
        {"type": "value", "options": {value: {"text": text, "color": colour, "index": index}}}
        for index, (value, text, colour) in enumerate(pairs)
    ]


# --- Dashboards -----------------------------------------------------------------------------------------------------


def variable(name, label, query, all_value):
    """A list to choose from. All is a pattern of its own: a list of ten thousand names would be a long query."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "multi": True,
        "includeAll": True,
        "allValue": all_value,
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "regex": "",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "skipUrlSync": False,
    }


DATASOURCE = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "query": "prometheus",
    "refresh": 1,
    "regex": "",
    "hide": 0,
    "multi": False,
    "includeAll": False,
    "current": {},
    "options": [],
    "skipUrlSync": False,
}
JOB = variable("job", "Job", "label_values(statsieve_build_info, job)", ".+")
INSTANCE = variable("instance", "Instance", 'label_values(statsieve_build_info{job=~"$job"}, instance)', ".+")

# Tabs at the top, which keep the time and the selection.
LINKS = [
    {
        "type": "dashboards",
        "title": "Statsieve",
        "tags": ["statsieve"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
]

# A mark in every graph where an alert of deploy/prometheus/rules fired.
ALERTS = {
    "name": "Alerts",
    "datasource": SOURCE,
    "enable": True,
    "expr": 'ALERTS{alertstate="firing", alertname=~"(Statsieve|Bot).+", job=~"$job"}',
    "titleFormat": "{{alertname}}",
    "textFormat": "{{job}}",
    "tagKeys": "severity",
    "step": "30s",
    "iconColor": "red",
}


def dashboard(uid, title, description, variables, rows):
    """A dashboard of rows: pairs of a title and panels."""
    panels, y = [], 0
    for heading, members in rows:
        place = {"h": 1, "w": 24, "x": 0, "y": y}
        panels.append({"type": "row", "title": heading, "collapsed": False, "gridPos": place, "panels": []})
        x, y, height = 0, y + 1, 0
        for member in members:
            columns, lines = member["size"]
            if x + columns > 24:
                x, y, height = 0, y + height, 0
            place = {"h": lines, "w": columns, "x": x, "y": y}
            panels.append({**{key: value for key, value in member.items() if key != "size"}, "gridPos": place})
            x, height = x + columns, max(height, lines)
        y += height
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["statsieve"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "links": LINKS,
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "annotations": {"list": [ALERTS]},
        "templating": {"list": [DATASOURCE, *variables]},
        "panels": [{"id": number, **each} for number, each in enumerate(panels, 1)],
    }
