// One dashboard as Grafana lays it out: 24 columns, rows of 30 pixels with 8 between.
//
// In: the JSON by ?dashboard=NAME, and a Prometheus by ?prometheus=URL. Out: a page that tells its server `ready` when
// all panels have their data, or what went wrong.

import React from 'react';
import { createRoot } from 'react-dom/client';
import { lastValueFrom } from 'rxjs';
import {
  createTheme,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  transformDataFrame,
} from '@grafana/data';
import { GlobalStyles, PanelChrome, PortalContainer } from '@grafana/ui';
import { Panel } from './panels.jsx';
import { framesOf } from './query.js';

const [ROW, GAP] = [30, 8];
const name = new URLSearchParams(window.location.search).get('dashboard');
const dashboards = import.meta.glob('../../dashboards/*.json', { eager: true, import: 'default' });
const dashboard = dashboards[`../../dashboards/${name}.json`];
const theme = createTheme({ colors: { mode: 'dark' } });
standardTransformersRegistry.setInit(() =>
  [...new Set(Object.values(standardTransformers))].map((each) => ({
    id: each.id,
    name: each.name,
    transformation: async () => each,
    editor: null,
  })),
);

function Page({ frames }) {
  const column = (window.innerWidth - 2 * GAP + GAP) / 24;
  const place = ({ x, y, w, h }) => ({
    position: 'absolute',
    left: x * column + GAP,
    top: y * (ROW + GAP) + 44,
    width: w * column - GAP,
    height: h * (ROW + GAP) - GAP,
  });
  const choices = dashboard.templating.list.map(
    ({ label }) => `${label}: ${label === 'Data source' ? 'Prometheus' : 'All'}`,
  );
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ display: 'flex', gap: 20, padding: '12px 12px 0', color: theme.colors.text.secondary }}>
        <b style={{ color: theme.colors.text.primary }}>{dashboard.title}</b>
        {choices.map((choice) => (
          <span key={choice}>{choice}</span>
        ))}
      </div>
      {dashboard.panels.map((panel) => {
        const style = place(panel.gridPos);
        if (panel.type === 'row')
          return (
            <h6 key={panel.id} style={{ ...style, paddingTop: 6 }}>
              ⌄ {panel.title}
            </h6>
          );
        return (
          <div key={panel.id} style={style}>
            <PanelChrome
              title={panel.title}
              description={panel.description}
              width={style.width}
              height={style.height}
            >
              {(width, height) => <Panel panel={panel} frames={frames[panel.id]} width={width} height={height} />}
            </PanelChrome>
          </div>
        );
      })}
    </ThemeContext.Provider>
  );
}

async function main() {
  const frames = {};
  for (const panel of dashboard.panels.filter(({ type }) => type !== 'row')) {
    frames[panel.id] = await framesOf(panel);
    if (panel.transformations)
      frames[panel.id] = await lastValueFrom(transformDataFrame(panel.transformations, frames[panel.id]));
  }
  createRoot(document.getElementById('root')).render(<Page frames={frames} />);
  await tell('ready');
}

const tell = (state) => fetch('/state', { method: 'POST', body: state });
main().catch((error) => tell(error.stack));
