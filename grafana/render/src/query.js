// Asks Prometheus for what a panel's targets say, and makes data frames of the answers.
//
// In: a panel of the dashboard's JSON, the time shown. Out: frames as Grafana's own data source would give them, one
// for each series, or for each table target. Always: a point for every step, null where there was none, so that gaps
// are gaps.

import { FieldType, toDataFrame } from '@grafana/data';

const parameters = new URLSearchParams(window.location.search);
const server = parameters.get('prometheus');
export const to = Math.floor(Number(parameters.get('to')) / 5) * 5;
export const from = to - Number(parameters.get('seconds'));
export const step = Math.max(5, Math.ceil((to - from) / 240));

const VARIABLES = {
  $__rate_interval: `${Math.max(20, step)}s`,
  $__interval: `${step}s`,
  $__range: `${to - from}s`,
  $job: '.+',
  $instance: '.+',
  $command: '.*',
  $method: '.*',
};

async function ask(path, query) {
  for (const [name, value] of Object.entries(VARIABLES)) query.query = query.query.replaceAll(name, value);
  const reply = await (
    await fetch(`${server}/api/v1/${path}`, { method: 'POST', body: new URLSearchParams(query) })
  ).json();
  if (reply.status !== 'success') throw new Error(`${reply.error}: ${query.query}`);
  return reply.data.result;
}

const nameOf = (legend, labels) => legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] ?? '');

export async function framesOf(panel) {
  const frames = [];
  for (const target of panel.targets) {
    const many = panel.targets.length > 1;
    if (target.instant) {
      const result = await ask('query', { query: target.expr, time: to });
      frames.push(
        ...(target.format === 'table' ? [tableOf(result, target, many)] : result.map((one) => rowOf(one, target))),
      );
    } else {
      const result = await ask('query_range', { query: target.expr, start: from, end: to, step });
      if (target.format === 'heatmap') return result;
      frames.push(...result.map((one) => seriesOf(one, target)));
    }
  }
  return frames;
}

function seriesOf({ metric, values }, { legendFormat, refId }) {
  const found = new Map(values.map(([at, value]) => [at, Number(value)]));
  const times = [];
  for (let at = from; at <= to; at += step) times.push(at);
  const points = times.map((at) => (Number.isFinite(found.get(at)) ? found.get(at) : null));
  return frame(
    nameOf(legendFormat, metric),
    metric,
    times.map((at) => at * 1000),
    points,
    refId,
  );
}

const rowOf = ({ metric, value }, { legendFormat, refId }) =>
  frame(nameOf(legendFormat, metric), metric, [value[0] * 1000], [Number(value[1])], refId);

function frame(name, labels, times, values, refId) {
  return toDataFrame({
    refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: times, config: {} },
      { name: 'Value', type: FieldType.number, labels, values, config: { displayNameFromDS: name } },
    ],
  });
}

function tableOf(result, { refId }, many) {
  const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))]
    .filter((label) => label !== '__name__')
    .sort();
  return toDataFrame({
    refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map(() => to * 1000) },
      ...labels.map((name) => ({
        name,
        type: FieldType.string,
        values: result.map(({ metric }) => metric[name] ?? ''),
      })),
      {
        name: many ? `Value #${refId}` : 'Value',
        type: FieldType.number,
        values: result.map(({ value }) => Number(value[1])),
      },
    ],
  });
}
