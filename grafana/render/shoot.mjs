// Draws the dashboards against a Prometheus and takes their pictures with headless Chromium.
//
//   node shoot.mjs http://127.0.0.1:9090 FOLDER [SECONDS SHOWN] [DASHBOARD...]
//
// In: the JSON files, a Prometheus with data. Out: FOLDER/<dashboard>.png.

import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { build, preview } from 'vite';

const [server, folder = '.', seconds = '900', ...wanted] = process.argv.slice(2);
if (!server) throw new Error('usage: node shoot.mjs PROMETHEUS_URL [FOLDER] [SECONDS] [DASHBOARD...]');
const root = import.meta.dirname;
const dashboards = join(root, '../dashboards');
const names = wanted.length ? wanted : readdirSync(dashboards).map((file) => file.replace('.json', ''));
const work = mkdtempSync(join(tmpdir(), 'statsieve-render-'));
const common = {
  root,
  configFile: false,
  logLevel: 'error',
  build: { outDir: join(work, 'page'), emptyOutDir: true },
};
try {
  await build({ ...common, define: { 'process.env.NODE_ENV': '"production"' }, esbuild: { jsx: 'transform' } });
  // What the page says of itself.
  let state;
  const configurePreviewServer = ({ middlewares }) => {
    middlewares.use('/state', async (request, response) => {
      state = (await request.toArray()).join('');
      response.end();
    });
  };
  const page = await preview({
    ...common,
    plugins: [{ name: 'state', configurePreviewServer }],
    preview: { host: '127.0.0.1', port: 0 },
  });
  const { port } = page.httpServer.address();
  for (const name of names) {
    const { panels } = JSON.parse(readFileSync(join(dashboards, `${name}.json`)));
    const rows = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h));
    const query = new URLSearchParams({
      dashboard: name,
      prometheus: server,
      to: Math.floor(Date.now() / 1000),
      seconds,
    });
    state = 'no word from the page';
    const picture = resolve(folder, `${name}.png`);
    await promisify(execFile)(
      process.env.CHROMIUM ?? 'chromium',
      [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--hide-scrollbars',
        `--user-data-dir=${join(work, 'profile')}`,
        `--window-size=1600,${rows * 38 + 52}`,
        '--virtual-time-budget=20000',
        `--screenshot=${picture}`,
        `http://127.0.0.1:${port}/?${query}`,
      ],
      { timeout: 60_000 },
    );
    if (state !== 'ready') throw new Error(`${name}: ${state}`);
    console.log(picture);
  }
  await page.close();
} finally {
  rmSync(work, { recursive: true, force: true });
}
