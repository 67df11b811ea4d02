"""Bot: does it answer, how fast, and what fails? Cache hit rate, queue size and reply latency come first."""

from model import *

COMMAND = 'command=~"$command"'
METHOD = 'method=~"$method"'
UPDATES = rate("bot_updates_total")
# Not the series that a limit took the bucket from: all users may be in it.
BUCKETS = rate("bot_messages_total", "user_bucket", 'user_bucket!=""')
REPLIES = "bot_reply_latency_seconds"
SIDECAR = [
    {
        "title": "Sidecar: where they are lost",
        "url": (
            "/d/statsieve-sidecar?${job:queryparam}&${instance:queryparam}&${datasource:queryparam}&${__url_time_range}"
        ),
    }
]

WELL = [
    stat(
        "Cache hit rate",
        "Share of look-ups that the bot's caches answered. Target: over 90 %. If it falls: a cache that was emptied"
        " (restart, deployment), is too small, or has a key that changes; Cache hit rate by cache says which.",
        "percentunit",
        share_of("bot_cache_requests_total", "result", '="hit"'),
        HIT_RATE,
    ),
    stat(
        "Largest queue",
        "Entries waiting in the fullest queue of any instance. Target: under 1,000. If it grows, the bot "
        "takes in more than it gets done: look at API calls answered 429 and at API latency.",
        "short",
        f"max({of('bot_queue_size')})",
        QUEUE,
    ),
    stat(
        "Reply latency P95",
        "Nineteen in twenty replies are faster. Target: under 2 s. If it is over: Reply latency P95 by "
        "command says which command, API latency whether the platform is slow.",
        "s",
        quantile(0.95, REPLIES, labels=COMMAND),
        REPLY,
    ),
    stat(
        "Errors per update",
        "Errors that the bot counted, for each update it took. Target: under 0.1 %. Errors by kind says "
        "of what kind they are.",
        "percentunit",
        share(rate("bot_errors_total"), UPDATES),
        ERRORS,
    ),
    stat(
        "API calls 429",
        "Share of calls that the platform refused because there were too many. Above 1 % replies "
        "come late: send less at once, and obey its retry_after.",
        "percentunit",
        share_of("bot_api_calls_total", "status", '="429"', labels=METHOD),
        steps(GREEN, (0.01, YELLOW), (0.05, RED)),
    ),
    stat(
        "Updates",
        "Updates taken per second. At 0 the bot is down, is not polling, or sends its lines elsewhere.",
        "cps",
        UPDATES,
        steps(RED, (0.000001, BLUE)),
    ),
    stat(
        "Unique users",
        "Different users within each window, estimated (standard error 3 %), of the instance that saw most: "
        "they cannot be added up, since a user of two instances would count twice. Of the whole fleet: see Fleet.",
        "short",
        [(f"max by (tag, window) ({of('statsieve_distinct')})", "{{window}}")],
    ),
    stat(
        "Samples lost",
        "Share of what the bot sent that the sidecar refused. Target: under 0.1 %. Above it the figures on "
        "this page are too low; the Sidecar dashboard says why.",
        "percentunit",
        LOST_RATIO,
        LOST_AT,
        links=SIDECAR,
    ),
]

ROWS = [
    ("Is it well?", WELL),
    (
        "Cache, queue, latency",
        [
            graph(
                "Cache hit rate by cache",
                "Share of look-ups answered, cache by cache; dashed: the target of 90 %. A cache "
                "that falls alone is too small or has a key that changes; all at once, a restart.",
                "percentunit",
                [(named("cache", share_of("bot_cache_requests_total", "result", '="hit"', "cache")), "{{cache}}")],
                thresholds=HIT_RATE,
                max=1,
                soft_min=0.8,
            ),
            graph(
                "Queue size",
                "Entries waiting, the fullest instance of each queue; dashed: the target of 1,000. A steady climb "
                "is a consumer that cannot keep up, a cliff down a restart.",
                "short",
                [(f"max by (queue) ({of('bot_queue_size')})", "{{queue}}")],
                thresholds=steps(TEXT, (1000, RED)),
            ),
            graph(
                "Reply latency",
                "From a command to its reply: half, 95 % and 99 % are faster; dashed: the target of 2 s for "
                "P95. If P99 alone is high, few suffer: look for one slow command.",
                "s",
                [
                    (quantile(q, REPLIES, labels=COMMAND), name)
                    for q, name in [(0.5, "P50"), (0.95, "P95"), (0.99, "P99")]
                ],
                thresholds=steps(TEXT, (2, RED)),
            ),
            heatmap(
                "Reply latency, all of them",
                "Replies per second by how long they took; darker is more. Two bands are two "
                "sorts of replies (a cache that hit, one that missed); a quantile would show neither.",
                REPLIES,
                labels=COMMAND,
            ),
            graph(
                "Reply latency P95 by command",
                "Which command is slow; dashed: the target of 2 s.",
                "s",
                [(named("command", quantile(0.95, REPLIES, "command", COMMAND)), "{{command}}")],
                (12, 8),
                steps(TEXT, (2, RED)),
            ),
        ],
    ),
    (
        "Traffic",
        [
            graph(
                "Updates",
                "Updates per second by type. A sudden 0 is a bot that no longer polls or gets its web hook; a sudden "
                "rise a broadcast or abuse.",
                "cps",
                [(named("type", rate("bot_updates_total", "type")), "{{type}}")],
                stacked=True,
            ),
            graph(
                "Commands",
                "Commands per second.",
                "cps",
                [(named("command", rate("bot_commands_total", "command", COMMAND)), "{{command}}")],
                stacked=True,
            ),
            graph(
                "Messages",
                "Messages of users per second by what they are.",
                "cps",
                [(named("activity_type", rate("bot_messages_total", "activity_type")), "{{activity_type}}")],
                stacked=True,
            ),
            graph(
                "Update duration",
                "How long the bot works on an update: half, and 95 %, are faster. It rises before the queue does.",
                "s",
                [(quantile(q, "bot_update_duration_seconds"), name) for q, name in [(0.5, "P50"), (0.95, "P95")]],
            ),
            graph(
                "Errors by kind",
                "Errors per second. timeout: the platform or a database is slow; flood_wait: too many calls; "
                "the rest is in the bot's own log.",
                "cps",
                [(named("kind", rate("bot_errors_total", "kind")), "{{kind}}")],
                stacked=True,
            ),
            graph(
                "Failed updates and commands",
                "Share whose result is not ok.",
                "percentunit",
                [(share_of(f"bot_{what}_total", "result", '!~"ok|"'), what) for what in ("updates", "commands")],
            ),
        ],
    ),
    (
        "API of the platform",
        [
            graph(
                "API calls by status",
                "Calls per second by the platform's answer. 429: too many; 5xx: the platform's fault; "
                "other 4xx: the bot's.",
                "cps",
                [(named("status", rate("bot_api_calls_total", "status", METHOD)), "{{status}}")],
                stacked=True,
            ),
            graph(
                "Calls answered 429",
                "Which method is called too often, as a share of its calls.",
                "percentunit",
                [
                    (
                        named("method", share_of("bot_api_calls_total", "status", '="429"', "method", METHOD)),
                        "{{method}}",
                    )
                ],
            ),
            graph(
                "API latency P95",
                "Nineteen in twenty calls are faster, by method. If it rises for all of them, it is the "
                "platform or the network.",
                "s",
                [(named("method", quantile(0.95, "bot_api_latency_seconds", "method", METHOD)), "{{method}}")],
            ),
        ],
    ),
    (
        "Users",
        [
            graph(
                "Unique users",
                "Different users within each window, estimated: the six highest of any instance. Instances "
                "cannot be added up; the Fleet dashboard counts each user once.",
                "short",
                [(f"topk(6, {of('statsieve_distinct')})", "{{window}}, {{instance}}")],
            ),
            bars(
                "Load by user bucket",
                "Messages per second of the ten busiest buckets, each a group of users. One far above the "
                "others holds a user who sends too much: /api/v1/top?tag=user_id on the sidecar names them.",
                "cps",
                [(named("user_bucket", f"topk(10, {rate('bot_messages_total', 'user_bucket')})"), "{{user_bucket}}")],
            ),
            graph(
                "Busiest user bucket",
                "Its share of all messages, and that of a bucket in the middle. Far apart: few users make the load.",
                "percentunit",
                [
                    (f"max({BUCKETS}) / {rate('bot_messages_total')}", "busiest"),
                    (f"quantile(0.5, {BUCKETS}) / {rate('bot_messages_total')}", "middle"),
                ],
            ),
        ],
    ),
]

# All also takes series that lack the label, which a limit may have taken away.
VARIABLES = [
    JOB,
    INSTANCE,
    variable("command", "Command", f"label_values({of('bot_commands_total')}, command)", ".*"),
    variable("method", "API method", f"label_values({of('bot_api_calls_total')}, method)", ".*"),
]

DASHBOARD = dashboard("statsieve-bot", "Statsieve / Bot", __doc__, VARIABLES, ROWS)
