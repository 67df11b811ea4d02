"""Fleet: ten thousand instances on one page, by recording rules; then the few worst, by name."""

from model import *


def rule(name, labels=""):
    """A recorded series of the selected jobs (deploy/prometheus/rules): no instance is left in it."""
    return f'{name}{{job=~"$job"{", " if labels else ""}{labels}}}'


# `by (tag, window)` over all jobs: a user of two bots is one user.
USERS = "statsieve:distinct"
WORST = "An instance opens in the Sidecar dashboard. "
OPEN = [
    {
        "title": "Open this instance",
        "url": (
            "/d/statsieve-sidecar?var-job=${__field.labels.job}"
            "&var-instance=${__field.labels.instance}&${datasource:queryparam}&${__url_time_range}"
        ),
    }
]
BY_INSTANCE = "{{instance}} {{job}}"
LOW = (8, 6)


def by_instance(name, labels=""):
    return f"sum by (job, instance) (rate({of(name, labels)}[$__rate_interval]))"


TARGETS, INSTANCES_UP = rule("job:statsieve_targets:count"), rule("job:statsieve_instances:count")
LOST_HERE = by_instance("statsieve_samples_dropped_total", LOSS)
KEPT_HERE = by_instance("statsieve_samples_recorded_total")
INGEST = quantile(0.95, "statsieve_ingest_latency_seconds", "job, instance")

WELL = [
    stat(
        "Instances down",
        "Targets of the sidecars' jobs that did not answer the last scrape.",
        "short",
        f"sum({TARGETS}) - sum({INSTANCES_UP})",
        ANY_IS_BAD,
    ),
    stat(
        "Scrapes answered",
        "Share of scrapes within the time shown that were answered, all instances. Target: 99.9 % over 30 days.",
        "percentunit",
        f"sum(sum_over_time({INSTANCES_UP}[$__range])) / sum(sum_over_time({TARGETS}[$__range]))",
        AVAILABLE,
        decimals=2,
    ),
    stat(
        "Samples lost",
        "In the worst job: share of samples refused, not counting what was left out on purpose. Target: under 0.1 %.",
        "percentunit",
        f"max({rule('statsieve:lost_ratio')})",
        LOST_AT,
    ),
    stat(
        "Kernel drops",
        "Datagrams per second that kernels threw away because a socket's queue was full. Most kernel drops, "
        "below, says where.",
        "cps",
        f"sum({rule('job:statsieve_kernel_dropped_datagrams:rate5m')})",
        ANY_IS_BAD,
    ),
    stat(
        "Instances sampling",
        "Instances that thin their stream because they have too little CPU. Totals stay right on average.",
        "short",
        f"sum({rule('job:statsieve_instances_sampling:count')})",
        ANY_IS_ODD,
    ),
    stat(
        "Instances limited",
        "Instances with a family that hit a limit, or full of series. Detail is lost, totals are not.",
        "short",
        f"sum({rule('job:statsieve_instances_limited:count')})",
        ANY_IS_ODD,
    ),
    stat(
        "Ingest latency P95",
        "Of the slowest job. Target: under 10 ms.",
        "s",
        f"max({rule('job:statsieve_ingest_latency_seconds:p95_rate5m')})",
        INGEST_AT,
    ),
    stat(
        "Unique users",
        "Of all instances and jobs, each user once. Needs distinct.export_registers on every sidecar and "
        "rules/distinct.yml.",
        "short",
        [(USERS, "{{window}}")],
    ),
]

TOTALS = [
    graph(
        "Lines",
        "Lines per second, job by job. 100,000 for one instance is well within its means.",
        "cps",
        [(rule("job:statsieve_lines:rate5m"), "{{job}}")],
        stacked=True,
    ),
    graph(
        "Samples recorded",
        "Samples per second in a series.",
        "cps",
        [(rule("job:statsieve_samples_recorded:rate5m"), "{{job}}")],
        stacked=True,
    ),
    graph(
        "Samples dropped, by reason",
        "Samples per second, of all jobs; sampled and mapping_drop are on purpose.",
        "cps",
        [
            (
                those_above_0(f"sum by (reason) ({rule('job_reason:statsieve_samples_dropped:rate5m')})", "reason"),
                "{{reason}}",
            )
        ],
        stacked=True,
    ),
    graph(
        "Samples lost",
        "Share of samples refused; dashed: the target of 0.1 %.",
        "percentunit",
        [(rule("statsieve:lost_ratio"), "{{job}}")],
        thresholds=steps(TEXT, (0.001, RED)),
    ),
    graph(
        "Instances",
        "That answer, thin their stream, or hit a limit.",
        "short",
        [
            (f"sum({rule(f'job:statsieve_{name}:count')})", legend)
            for name, legend in [
                ("instances", "up"),
                ("instances_sampling", "sampling"),
                ("instances_limited", "limited"),
            ]
        ],
    ),
    graph(
        "Sample lines",
        "What Prometheus has to keep for the bots' series.",
        "short",
        [(rule("job:statsieve_series:sum"), "{{job}}")],
        stacked=True,
    ),
    graph(
        "Series made",
        "New series per second. High for long: a label whose values come and go.",
        "cps",
        [(rule("job:statsieve_series_created:rate5m"), "{{job}}")],
    ),
    graph(
        "Memory",
        "Of all sidecars of a job, and of the largest.",
        "bytes",
        [
            (rule("job:statsieve_resident_memory_bytes:sum"), "{{job}}, all"),
            (rule("job:statsieve_resident_memory_bytes:max"), "{{job}}, largest"),
        ],
    ),
    graph(
        "CPU",
        "Cores that the sidecars of a job use together.",
        "short",
        [(rule("job:statsieve_cpu_seconds:rate5m"), "{{job}}")],
        soft_max=0.01,
        stacked=True,
    ),
]

WORST_INSTANCES = [
    bars(
        "Most samples lost",
        WORST + "Why: Refused, by reason.",
        "percentunit",
        [(f"topk(8, {LOST_HERE} / ({LOST_HERE} + {KEPT_HERE}))", BY_INSTANCE)],
        LOW,
        thresholds=LOST_AT,
        links=OPEN,
    ),
    bars(
        "Most kernel drops",
        WORST + "More CPU, or a larger net.core.rmem_max.",
        "cps",
        [(f"topk(8, {by_instance('statsieve_kernel_dropped_datagrams_total')})", BY_INSTANCE)],
        LOW,
        thresholds=ANY_IS_BAD,
        links=OPEN,
    ),
    bars(
        "Fewest lines kept",
        WORST + "Below 100 % it thins its stream: more CPU, or more senders.",
        "percentunit",
        [(f"bottomk(8, min by (job, instance) ({of('statsieve_sampling_rate')}))", BY_INSTANCE)],
        LOW,
        thresholds=SAMPLING,
        links=OPEN,
        max=1,
    ),
    bars(
        "Fullest of series",
        WORST + "From 80 % on new series lose labels.",
        "percentunit",
        [(f"topk(8, {of('statsieve_series')} / {of('statsieve_series_limit')})", BY_INSTANCE)],
        LOW,
        thresholds=FILL,
        links=OPEN,
        max=1,
    ),
    bars(
        "Slowest ingest, P95",
        WORST + "Target: under 10 ms.",
        "s",
        [(f"topk(8, {INGEST})", BY_INSTANCE)],
        LOW,
        thresholds=INGEST_AT,
        links=OPEN,
    ),
    bars(
        "Most memory",
        WORST + "Target: under 2 GB.",
        "bytes",
        [(f"topk(8, {of_sidecars(of('process_resident_memory_bytes'))})", BY_INSTANCE)],
        LOW,
        thresholds=MEMORY,
        links=OPEN,
    ),
    table(
        "Sampling",
        "Instances that keep less than all lines. Empty is well.",
        [f"topk(50, 1 - min by (job, instance) ({of('statsieve_sampling_rate')}) > 0)"],
        {"job": "Job", "instance": "Instance", "Value": "Left out"},
        (10, 6),
        {"Left out": "percentunit"},
    ),
    table(
        "Limited",
        "Families that hit a limit, and in how many instances of a job. Empty is well.",
        [f"topk(50, count by (job, family, limit) ({of('statsieve_limited_family_info')}))"],
        {"job": "Job", "family": "Family", "limit": "Limit", "Value": "Instances"},
        (14, 6),
    ),
]

BOTS = [
    graph(
        "Cache hit rate",
        "Dashed: the target of 90 %.",
        "percentunit",
        [(rule("job:bot_cache_hit_ratio:rate5m"), "{{job}}")],
        thresholds=HIT_RATE,
        max=1,
        soft_min=0.8,
    ),
    graph(
        "Largest queue",
        "Of any instance; dashed: the target of 1,000.",
        "short",
        [(rule("job:bot_queue_size:max"), "{{job}}")],
        thresholds=steps(TEXT, (1000, RED)),
    ),
    graph(
        "Reply latency P95",
        "Dashed: the target of 2 s.",
        "s",
        [(rule("job:bot_reply_latency_seconds:p95_rate5m"), "{{job}}")],
        thresholds=steps(TEXT, (2, RED)),
    ),
    graph(
        "Errors per update",
        "Dashed: the target of 0.1 %.",
        "percentunit",
        [(rule("job:bot_errors_per_update:ratio_rate5m"), "{{job}}")],
        thresholds=steps(TEXT, (0.001, RED)),
    ),
    graph(
        "Updates and messages",
        "Per second.",
        "cps",
        [(rule("job:bot_updates:rate5m"), "{{job}}, updates"), (rule("job:bot_messages:rate5m"), "{{job}}, messages")],
    ),
    graph(
        "Unique users of the whole fleet",
        "Each user once, however many instances and jobs saw them.",
        "short",
        [(USERS, "{{tag}} {{window}}")],
    ),
]

VERSIONS = [
    table(
        "Versions",
        "How many instances run which. Two for a while is a deployment, for long a forgotten one.",
        [f"count by (job, version, revision) ({of('statsieve_build_info')})"],
        {"job": "Job", "version": "Version", "revision": "Revision", "Value": "Instances"},
        (12, 6),
    ),
    table(
        "Configurations",
        "How many instances of a job run on which configuration. More than one hash for long: a reload "
        "failed or was forgotten.",
        [f"count by (job, hash) ({of('statsieve_config_info')})"],
        {"job": "Job", "hash": "Configuration", "Value": "Instances"},
        (12, 6),
    ),
]

ROWS = [
    ("Is it well?", WELL),
    ("The bots", BOTS),
    ("Totals", TOTALS),
    ("The worst instances", WORST_INSTANCES),
    ("Versions and configurations in use", VERSIONS),
]

DASHBOARD = dashboard("statsieve-fleet", "Statsieve / Fleet", __doc__, [JOB, INSTANCE], ROWS)
