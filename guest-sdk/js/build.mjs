// Makes a component of a function in JavaScript: bundles it with what it imports, and puts it into an engine.
// build.sh runs it: node build.mjs SOURCE.js OUT.wasm
//
// The tools are those of package-lock.json: in node_modules here (`npm ci --ignore-scripts`), or in the cache, where
// deploy/setup.sh puts them.
import { existsSync } from 'node:fs';
import { cp, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const cache = process.env.WASMETER_CACHE || join(homedir(), '.cache', 'wasmeter');
const modules = [join(here, 'node_modules'), join(cache, 'js', 'node_modules')].find((folder) => existsSync(folder));

function fail(message) {
  console.error(`build.mjs: ${message}`);
  process.exit(1);
}

const [source, out] = process.argv.slice(2);
if (!source || !out) fail('usage: build.sh SOURCE.js OUT.wasm');
if (!modules) fail(`no tools: run deploy/setup.sh of wasmeter, or \`npm ci --ignore-scripts\` in ${here}`);
const tool = (path) => import(pathToFileURL(join(modules, path)));
const { rolldown } = await tool('rolldown/dist/index.mjs');
const { componentize } = await tool('@bytecodealliance/componentize-js/src/componentize.js');

// The version of what the engine provides is in the specifier, so nothing of it is to be found on disk.
const bundle = await rolldown({
  input: resolve(source),
  external: /^(wasi|wasmeter):/,
  resolve: { alias: { wasmeter: join(here, 'wasmeter.js') } },
  onwarn: (warning) => fail(warning.message),
});
const { output } = await bundle.generate({ format: 'esm', codeSplitting: false });

const work = await mkdtemp(join(tmpdir(), 'wasmeter-js-'));
try {
  await cp(join(here, 'wit'), work, { recursive: true });
  await cp(join(here, '..', '..', 'wit', 'deps', 'nn'), join(work, 'deps', 'nn'), { recursive: true });
  const { component } = await componentize({
    sourcePath: await kept(join(work, 'function.js'), output[0].code),
    witPath: work,
    worldName: 'function',
  });
  // Whole or not at all: somebody may be reading the old one.
  await rename(await kept(`${resolve(out)}.new.${process.pid}`, component), resolve(out));
} finally {
  await rm(work, { recursive: true, force: true });
}

async function kept(path, content) {
  await writeFile(path, content);
  return path;
}
