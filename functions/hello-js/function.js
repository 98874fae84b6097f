// Greets, and asks a model.
import { ModelError, env, json, load, tensor, values } from 'wasmeter';

function greet(url) {
  const greeting = env().GREETING ?? 'hello';
  return new Response(`${greeting} ${url.searchParams.get('name') ?? 'world'}\n`, {
    headers: { 'content-type': 'text/plain; charset=utf-8' },
  });
}

async function score(request) {
  const { row } = (await request.json().catch(() => null)) ?? {};
  if (!Array.isArray(row) || row.length !== 8 || !row.every(Number.isFinite)) {
    return json({ error: 'the body is not {"row": a list of 8 numbers}' }, 400);
  }
  const { y } = load('tiny')({ x: tensor([1, 8], new Float32Array(row)) });
  return json({ scores: Array.from(values(y)) });
}

async function handle(request) {
  switch (request.method) {
    case 'GET':
    case 'HEAD':
      return greet(new URL(request.url));
    case 'POST':
      return await score(request);
    default:
      return json({ error: 'GET or POST' }, 405);
  }
}

// What throws here is said in `wasmeter logs`, and to the caller as far as it is a model's.
addEventListener('fetch', (event) =>
  event.respondWith(
    handle(event.request).catch((error) => {
      console.error(error);
      return json({ error: error instanceof ModelError ? error.message : 'the function failed' }, 500);
    }),
  ),
);
