// Sends a fixed set of metrics by the npm package `hot-shots`; prints how many lines that were.
//
// Usage: send_hot_shots.js HOST PORT [tcp]
//        send_hot_shots.js PATH    (a unix stream)
//
//     bot.messages         counter, 2 + 3, tags user_id:42 and activity_type:message
//     bot.queue.size       gauge, 12.5, then 9, tag queue:outbox
//     bot.update.duration  timer, 120 ms, tag type:message
//     bot.reply.bytes      histogram, 2048
//     bot.batch.length     distribution, 3.5
//
// All with the global tag fleet:eu. Lines are packed into datagrams by the client's own buffer, which `close` flushes.

"use strict";

const { StatsD } = require("hot-shots");

const net = require("node:net");
const [host, port, protocol] = process.argv.slice(2);

function fail(error) {
  console.error(error);
  process.exitCode = 1;
}

const where = port
  ? { host, port: Number(port), protocol: protocol || "udp" }
  : { protocol: "stream", stream: net.connect(host) };
const client = new StatsD({
  ...where,
  prefix: "bot.",
  globalTags: { fleet: "eu" },
  includeDataDogTags: false,
  maxBufferSize: 200,
  errorHandler: fail,
});

client.increment("messages", 2, { user_id: "42", activity_type: "message" });
client.increment("messages", 3, { user_id: "42", activity_type: "message" });
client.gauge("queue.size", 12.5, { queue: "outbox" });
client.gauge("queue.size", 9, { queue: "outbox" });
client.timing("update.duration", 120, { type: "message" });
client.histogram("reply.bytes", 2048);
client.distribution("batch.length", 3.5);
client.close((error) => (error ? fail(error) : console.log(7)));
