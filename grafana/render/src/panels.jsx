// Draws one panel with Grafana's own components, from its JSON and its frames. The heatmap is drawn here: Grafana has
// it in its server's pages only, and gives no component.

import React from 'react';
import { getDisplayProcessor, getFieldDisplayName, reduceField, VizOrientation } from '@grafana/data';
import { BarGauge, BigValue, Table, TimeSeries, useTheme2, VizRepeater } from '@grafana/ui';
import { from, step, to } from './query.js';

/** The field's configuration from the panel's defaults and its overrides by name, and how to show its values. */
function configure(frames, panel, theme) {
  let number = 0;
  for (const frame of frames) {
    for (const field of frame.fields) {
      if (field.type === 'time') continue;
      const config = { ...panel.fieldConfig.defaults, ...field.config };
      for (const { matcher, properties } of panel.fieldConfig.overrides) {
        if (matcher.options !== getFieldDisplayName(field, frame)) continue;
        for (const { id, value } of properties) {
          if (id.startsWith('custom.')) config.custom = { ...config.custom, [id.slice(7)]: value };
          else config[id] = value;
        }
      }
      field.config = config;
      field.state = { seriesIndex: number++, displayName: getFieldDisplayName(field, frame) };
      if (field.type === 'number') {
        const { min, max } = reduceField({ field: { ...field, state: {} }, reducers: ['min', 'max'] });
        const range = { min: config.min ?? min, max: config.max ?? max };
        field.state.range = { ...range, delta: range.max - range.min };
      }
      field.display = getDisplayProcessor({ field, theme });
    }
  }
  return frames;
}

const valueField = (frame) => frame.fields.find((field) => field.type === 'number');

export function Panel({ panel, frames, width, height }) {
  const theme = useTheme2();
  if (!frames.length || frames.every((frame) => frame.length === 0)) {
    return <div style={{ display: 'grid', placeItems: 'center', height }}>No data</div>;
  }
  if (panel.type === 'heatmap') return <Heatmap panel={panel} result={frames} width={width} height={height} />;
  const shown = configure(frames, panel, theme);
  const { options } = panel;
  if (panel.type === 'timeseries') {
    const timeRange = { from: { valueOf: () => from * 1000 }, to: { valueOf: () => to * 1000 } };
    return (
      <TimeSeries
        frames={shown}
        structureRev={1}
        timeRange={timeRange}
        timeZone="utc"
        width={width}
        height={height}
        legend={options.legend}
        options={{}}
      />
    );
  }
  if (panel.type === 'table') return <Table data={shown[0]} width={width} height={height} />;

  const values = () =>
    shown.map((frame) => {
      const field = valueField(frame);
      const last = reduceField({ field, reducers: ['lastNotNull'] }).lastNotNull;
      return { field, value: { ...field.display(last), title: field.state.displayName } };
    });
  const common = { getValues: values, source: frames, width, height, renderCounter: 0 };
  if (panel.type === 'stat') {
    return (
      <VizRepeater
        {...common}
        orientation={VizOrientation.Auto}
        renderValue={({ value: { value }, width, height }) => (
          <BigValue
            value={options.textMode === 'value' ? { ...value, title: undefined } : value}
            theme={theme}
            width={width}
            height={height}
            {...options}
          />
        )}
      />
    );
  }
  const most = Math.max(...shown.map((frame) => valueField(frame).state.range.max));
  return (
    <VizRepeater
      {...common}
      orientation={VizOrientation.Horizontal}
      itemSpacing={6}
      minVizHeight={options.minVizHeight}
      maxVizHeight={options.maxVizHeight}
      renderValue={({ value: { field, value }, width, height, alignmentFactors }) => {
        const config = { ...field.config, max: field.config.max ?? (most || 1) };
        const display = getDisplayProcessor({ field: { ...field, config, state: undefined }, theme });
        return (
          <BarGauge
            {...options}
            field={config}
            display={display}
            value={{ ...value, ...display(value.numeric), title: value.title }}
            orientation="horizontal"
            theme={theme}
            width={width}
            height={height}
            valueDisplayMode={options.valueMode}
            alignmentFactors={{ title: longest(shown, (f) => f.state.displayName), text: '100.00%' }}
          />
        );
      }}
    />
  );
}

const longest = (frames, nameOf) =>
  frames
    .map((frame) => nameOf(valueField(frame)))
    .reduce((most, name) => (name.length > most.length ? name : most), '');

/** Cells [time, lower bound, upper bound, count], of cumulative classic buckets or of native ones. */
function cellsOf(result) {
  const cells = [];
  const byBound = (one) => (one.metric.le === '+Inf' ? Infinity : Number(one.metric.le));
  const classic = result.filter((one) => one.metric.le).sort((a, b) => byBound(a) - byBound(b));
  classic.forEach((one, index) => {
    const below = new Map(index ? classic[index - 1].values : []);
    for (const [at, count] of one.values) {
      cells.push([at, index ? byBound(classic[index - 1]) : 0, byBound(one), count - (below.get(at) ?? 0)]);
    }
  });
  for (const one of result) {
    for (const [at, { buckets }] of one.histograms ?? []) {
      for (const [, low, high, count] of buckets ?? []) cells.push([at, Number(low), Number(high), Number(count)]);
    }
  }
  return cells.filter(([, , , count]) => count > 1e-9);
}

function Heatmap({ panel, result, width, height }) {
  const theme = useTheme2();
  const cells = cellsOf(result);
  const bounds = [...new Set(cells.flatMap(([, low, high]) => [low, high]))].sort((a, b) => a - b);
  const [left, bottom] = [52, 22];
  const [x, rows] = [(at) => left + ((at - from) / (to - from)) * (width - left), bounds.length - 1];
  const y = (bound) => (height - bottom) * (1 - bounds.indexOf(bound) / rows);
  const most = Math.max(...cells.map(([, , , count]) => count));
  const text = getDisplayProcessor({
    field: { type: 'number', config: { unit: panel.fieldConfig.defaults.unit } },
    theme,
  });
  const label = (value) => {
    if (value === Infinity) return '+Inf';
    const shown = text(value);
    return `${shown.text}${shown.suffix ?? ''}`;
  };
  const style = { fill: theme.colors.text.secondary, fontSize: 11 };
  const clock = (at) => new Date(at * 1000).toISOString().slice(11, 16);
  const [fewLabels, marks] = [Math.ceil(bounds.length / 10), [0.1, 0.3, 0.5, 0.7, 0.9]];
  return (
    <svg width={width} height={height}>
      {cells.map(([at, low, high, count], index) => (
        <rect
          key={index}
          x={x(at)}
          y={y(high)}
          width={Math.max(1, x(at + step) - x(at) - 0.5)}
          height={y(low) - y(high) - 1}
          fill={`hsl(24 90% ${18 + 52 * Math.sqrt(count / most)}%)`}
        />
      ))}
      {bounds.map(
        (bound, index) =>
          index % fewLabels === 0 && (
            <text key={bound} x={left - 6} y={y(bound) + (index ? 8 : 0)} textAnchor="end" {...style}>
              {label(bound)}
            </text>
          ),
      )}
      {marks.map((part) => (
        <text key={part} x={x(from + part * (to - from))} y={height - 6} textAnchor="middle" {...style}>
          {clock(from + part * (to - from))}
        </text>
      ))}
    </svg>
  );
}
