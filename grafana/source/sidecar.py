"""Sidecar: what becomes of the lines a bot sends, in the order they pass through it, and why some are not there."""

from model import *

RELOADED = words(("0", "refused", RED), ("1", "in force", GREEN))
SERIES_FILL = f"max({of('statsieve_series')} / {of('statsieve_series_limit')})"
HITS, MISSES = rate("statsieve_identity_cache_hits_total"), rate("statsieve_identity_cache_misses_total")
INGEST, SCRAPES = "statsieve_ingest_latency_seconds", "statsieve_scrape_duration_seconds"
LOST_BY_REASON = rate("statsieve_samples_dropped_total", "reason", LOSS)
MEMORY_NOW = of_sidecars(of("process_resident_memory_bytes"))
CPU_NOW = of_sidecars(f"rate({of('process_cpu_seconds_total')}[$__rate_interval])")
QUEUE_FILL = f"{of('statsieve_receive_queue_bytes')} / {of('statsieve_receive_queue_limit_bytes')}"

WELL = [
    stat(
        "Instances down",
        "Targets of the sidecars' jobs that did not answer the last scrape. Above 0: is the process there, "
        "and its HTTP port reachable? The bot goes on without it; its figures do not.",
        "short",
        f"sum(1 - {UP})",
        ANY_IS_BAD,
    ),
    stat(
        "Samples lost",
        "Share of samples refused, sampled and mapping_drop left out since both are on purpose. Target: under "
        "0.1 %. Above: Refused, by reason says why, and the status page of the sidecar shows the last such lines.",
        "percentunit",
        LOST_RATIO,
        LOST_AT,
    ),
    stat(
        "Kernel drops",
        "Datagrams per second that the kernel threw away because the socket's queue was full. Above 0: raise "
        "net.core.rmem_max and listen.receive_buffer_bytes, or give the sidecar more CPU.",
        "cps",
        rate("statsieve_kernel_dropped_datagrams_total"),
        ANY_IS_BAD,
    ),
    stat(
        "Lines kept",
        "The least share of lines that a worker keeps. Below 1 it thins its stream: totals stay right on "
        "average, detail and unique users do not. For long: a higher CPU limit, more workers and senders.",
        "percentunit",
        f"min({of('statsieve_sampling_rate')})",
        SAMPLING,
    ),
    stat(
        "Series limit used",
        "The fullest instance. From 80 % on new series lose labels, at 100 % they go into the "
        "overflow series. Families that hit a limit are below; raise [cardinality] or drop a label.",
        "percentunit",
        SERIES_FILL,
        FILL,
    ),
    stat(
        "Ingest latency P95",
        "From a datagram's arrival in the kernel until all of its lines are recorded. Target: under 10 ms.",
        "s",
        quantile(0.95, INGEST),
        INGEST_AT,
    ),
    stat(
        "Memory",
        "Of the largest process. Target: under 2 GB; cardinality.max_bytes limits what series take.",
        "bytes",
        f"max({MEMORY_NOW})",
        MEMORY,
    ),
    stat(
        "Configuration",
        "Refused: the last reload had a problem and the old configuration stays in force, or --fallback took "
        "the defaults. The log says line and key; `statsieve check` shows all of it.",
        "none",
        f"min({of('statsieve_config_last_reload_successful')})",
        steps(RED, (1, GREEN)),
        mappings=RELOADED,
    ),
]

WAY = [
    graph(
        "1 Received",
        "Lines and datagrams per second. Nothing: does the bot send to listen.udp? The status page shows the "
        "address and a line to try.",
        "cps",
        [
            (rate("statsieve_lines_total"), "lines"),
            (rate("statsieve_datagrams_total", "listener"), "datagrams, {{listener}}"),
        ],
    ),
    graph(
        "2 Lost before they were read",
        "Datagrams per second dropped by the kernel, and those that Datadog clients say they could not send.",
        "cps",
        [
            (rate("statsieve_kernel_dropped_datagrams_total", "listener"), "kernel, {{listener}}"),
            (rate("statsieve_client_dropped_total"), "clients"),
        ],
    ),
    graph(
        "3 Refused, by reason",
        "Samples per second that were lost. malformed_*: the client is wrong; type_conflict: one name "
        "with two types; cardinality, rate_limited: a limit. The status page shows the last refused lines.",
        "cps",
        [(those_above_0(LOST_BY_REASON, "reason"), "{{reason}}")],
        stacked=True,
    ),
    graph(
        "4 Left out on purpose",
        "Samples per second: thinned out under load (sampled; what is kept counts for more), or "
        "dropped by a mapping rule.",
        "cps",
        [(rate("statsieve_samples_dropped_total", "reason", 'reason=~"sampled|mapping_drop"'), "{{reason}}")],
    ),
    graph(
        "5 Sampling",
        "Share of lines that the busiest workers of five instances keep, and the load (of a core or the CPU quota) that"
        " decides it: over 1.5 times sampling.target_load lines are thinned.",
        "percentunit",
        [
            (f"bottomk(5, min by (instance) ({of('statsieve_sampling_rate')}))", "kept, {{instance}}"),
            (f"max({of('statsieve_load_ratio')})", "highest load"),
        ],
    ),
    graph(
        "6 Over quota",
        "Samples per second dropped because [rate_limit] says so; totals lose them. Off unless configured.",
        "cps",
        [(rate("statsieve_samples_dropped_total", "instance", 'reason="rate_limited"'), "{{instance}}")],
    ),
    graph(
        "7 Identity cache hit rate",
        "Share of samples whose series was found at once. Steadily under 99 %: a tag is different "
        "on nearly every line (a message id); put it into labels.drop or [[bucketing]].",
        "percentunit",
        [(f"{HITS} / ({HITS} + {MISSES})", "hits")],
        thresholds=IDENTITY,
        max=1,
        soft_min=0.8,
    ),
    graph(
        "8 Mapping",
        "Samples per second that a rule named (map) or dropped, or none was for.",
        "cps",
        [(rate("statsieve_mapping_actions_total", "action"), "{{action}}")],
        stacked=True,
    ),
    graph(
        "9 Recorded, by type",
        "Samples per second that are in a series.",
        "cps",
        [(those_above_0(rate("statsieve_samples_recorded_total", "type"), "type"), "{{type}}")],
        stacked=True,
    ),
]

LIMITS = [
    graph(
        "Sample lines and their limit",
        "What a text scrape of the bot's series has, and cardinality.max_series; the ten fullest instances.",
        "short",
        [(f"topk(10, {of('statsieve_series')})", "{{instance}}"), (f"min({of('statsieve_series_limit')})", "limit")],
    ),
    graph(
        "Series made and removed",
        "Per second. Many made for long are churn: a label whose values come and go. evicted: "
        "idle ones gave way at a limit.",
        "cps",
        [
            (rate("statsieve_series_created_total"), "made"),
            (rate("statsieve_series_expired_total", "cause"), "removed, {{cause}}"),
        ],
    ),
    graph(
        "Detail lost to limits",
        "Per second: samples that went into an overflow series, new label sets that kept only some "
        "labels, values that became other. Totals are right all the same.",
        "cps",
        [
            (rate("statsieve_overflow_samples_total"), "overflow"),
            (rate("statsieve_series_simplified_total"), "simplified"),
            (rate("statsieve_label_values_folded_total"), "other"),
        ],
    ),
    table(
        "Families that hit a limit",
        "The first twenty of each instance since its start. Empty is well. Which label is to "
        "blame: /api/v1/cardinality on the sidecar.",
        [f"max by (job, instance, family, limit) ({of('statsieve_limited_family_info')})"],
        {"job": "Job", "instance": "Instance", "family": "Family", "limit": "Limit"},
    ),
    graph(
        "Families",
        "Metric names of the bot, most in one instance.",
        "short",
        [(f"max({of('statsieve_families')})", "families")],
        (6, 8),
    ),
    graph(
        "Tags left out or cut",
        "Per second, while their sample went on. dropped: labels.drop says so.",
        "cps",
        [(those_above_0(rate("statsieve_tags_dropped_total", "reason"), "reason"), "{{reason}}")],
        (6, 8),
        stacked=True,
    ),
]

SPEED = [
    graph(
        "Queue fill",
        "Share of the socket buffer in use as scraped, the ten fullest; at 100 % the kernel drops. From 50 % on "
        "the sidecar thins its stream.",
        "percentunit",
        [(f"topk(10, {QUEUE_FILL})", "{{instance}}")],
        thresholds=steps(TEXT, (0.5, YELLOW), (1, RED)),
        soft_max=1,
    ),
    graph(
        "Ingest latency",
        "From the kernel's arrival stamp until recorded; dashed: the target of 10 ms for P95.",
        "s",
        [(quantile(q, INGEST), name) for q, name in [(0.5, "P50"), (0.95, "P95"), (0.99, "P99")]],
        thresholds=steps(TEXT, (0.01, RED)),
    ),
    heatmap(
        "Ingest latency, all of it", "Datagrams per second by how long they waited; darker is more.", INGEST, (8, 8)
    ),
]

COST = [
    graph(
        "Memory",
        "Resident, the ten largest, and the most that the configuration of any allows; dashed: the target of 2 GB.",
        "bytes",
        [(f"topk(10, {MEMORY_NOW})", "{{instance}}"), (f"max({of('statsieve_memory_limit_bytes')})", "limit")],
        (6, 8),
        steps(TEXT, (2e9, RED)),
    ),
    graph(
        "CPU",
        "Cores in use, the ten busiest.",
        "short",
        [(f"topk(10, {CPU_NOW})", "{{instance}}")],
        (6, 8),
        soft_max=0.01,
    ),
    graph(
        "Scrape duration",
        "P95 as the sidecar measures it, and the longest as Prometheus saw it. Near scrape_timeout scrapes "
        "begin to fail.",
        "s",
        [
            (quantile(0.95, SCRAPES), "P95, sidecar"),
            (f"max({of_sidecars(of('scrape_duration_seconds'))})", "longest, Prometheus"),
        ],
        (6, 8),
    ),
    graph(
        "Scrape size",
        "Before compression, the ten largest. Prometheus refuses what is over its body_size_limit.",
        "bytes",
        [(f"topk(10, {of('statsieve_scrape_bytes')})", "{{instance}}")],
        (6, 8),
    ),
]

CONFIGURATION = [
    table(
        "Versions and configurations",
        "What runs where. State refused: the last reload had a problem. More than one hash "
        "among instances that should be alike: a reload was forgotten.",
        [
            f"max by (job, instance, version, revision) ({of('statsieve_build_info')})",
            f"max by (job, instance, hash) ({of('statsieve_config_info')})",
            f"max by (job, instance) ({of('statsieve_config_last_reload_successful')})",
            f"1000 * max by (job, instance) ({of('statsieve_config_last_reload_success_timestamp_seconds')})",
            f"1000 * max by (job, instance) ({of_sidecars(of('process_start_time_seconds'))})",
        ],
        {
            "job": "Job",
            "instance": "Instance",
            "version": "Version",
            "revision": "Revision",
            "hash": "Configuration",
            "Value #C": "State",
            "Value #D": "Configuration read",
            "Value #E": "Started",
        },
        (24, 7),
        {"Configuration read": "dateTimeFromNow", "Started": "dateTimeFromNow"},
        {"State": RELOADED},
    )
]

ROWS = [
    ("Is it well?", WELL),
    ("The way of a sample", WAY),
    ("Limits", LIMITS),
    ("Speed", SPEED),
    ("What it costs", COST),
    ("Version and configuration", CONFIGURATION),
]

DASHBOARD = dashboard("statsieve-sidecar", "Statsieve / Sidecar", __doc__, [JOB, INSTANCE], ROWS)
