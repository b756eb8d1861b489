// The script of a web page that sends the known trace once, and tells its own server what became of that.
//
// The page's parameters: `url`, to which traces go; `how`: json or protobuf by the exporters, gzip or beacon by what
// browsers have themselves; `header`: the name of one more header.

import { OTLPTraceExporter as Json } from '@opentelemetry/exporter-trace-otlp-http'
import { OTLPTraceExporter as Protobuf } from '@opentelemetry/exporter-trace-otlp-proto'
import { JsonTraceSerializer } from '@opentelemetry/otlp-transformer'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { BatchSpanProcessor, WebTracerProvider } from '@opentelemetry/sdk-trace-web'
import { send } from './known.mjs'
import { Watched } from './watched.mjs'

const parameters = new URLSearchParams(location.search)
const url = parameters.get('url')
const header = parameters.get('header')

// Sends without an exporter; as a beacon, the page does not hear what becomes of it.
class Bare {
  constructor (post) {
    this.post = post
  }

  export (spans, done) {
    this.post(JsonTraceSerializer.serializeRequest(spans)).then(
      ok => done({ code: ok ? 0 : 1 }), error => done({ code: 1, error }))
  }

  async forceFlush () {}

  async shutdown () {}
}

async function gzip (body) {
  const stream = new Blob([body]).stream().pipeThrough(new CompressionStream('gzip'))
  const headers = { 'content-type': 'application/json', 'content-encoding': 'gzip' }
  return (await fetch(url, { method: 'POST', headers, body: await new Response(stream).arrayBuffer() })).ok
}

async function beacon (body) {
  return navigator.sendBeacon(url, new Blob([body], { type: 'application/json' }))
}

const options = { url, headers: header ? { [header]: 'value' } : {}, timeoutMillis: 3000 }
const exporters = {
  json: () => new Json(options),
  protobuf: () => new Protobuf(options),
  gzip: () => new Bare(gzip),
  beacon: () => new Bare(beacon)
}

const exporter = new Watched(exporters[parameters.get('how')]())
const provider = new WebTracerProvider({
  resource: resourceFromAttributes({
    'service.name': 'shop', 'deployment.environment.name': 'test', place: 'Köln'
  }),
  spanProcessors: [new BatchSpanProcessor(exporter)]
})
send(provider.getTracer('clients', '1.2.3'))
await provider.forceFlush().catch(() => {})
await fetch('/outcome', { method: 'POST', body: exporter.outcome })
