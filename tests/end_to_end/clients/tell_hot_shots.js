// Has the npm package `hot-shots` tell of itself, when it closes; prints how many metrics it was given.
//
// Usage: tell_hot_shots.js HOST PORT

"use strict";

const { StatsD } = require("hot-shots");

const [host, port] = process.argv.slice(2);

function fail(error) {
  console.error(error);
  process.exitCode = 1;
}

const client = new StatsD({
  host,
  port: Number(port),
  prefix: "bot.",
  globalTags: { worker: "1" },
  includeDatadogTelemetry: true,
  errorHandler: fail,
});

client.increment("messages");
client.increment("messages");
client.gauge("queue.size", 3);
client.timing("update.duration", 120);
client.close((error) => (error ? fail(error) : console.log(4)));
