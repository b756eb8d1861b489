// Sends the known trace for each line of standard input, as OTEL_EXPORTER_OTLP_* say, and tells "sent" or what failed.

import { createInterface } from 'node:readline'
import { trace } from '@opentelemetry/api'
import { NodeSDK } from '@opentelemetry/sdk-node'
import { BatchSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { send } from './known.mjs'
import { Watched } from './watched.mjs'

const kinds = { grpc: 'grpc', 'http/protobuf': 'proto', 'http/json': 'http' }
const kind = kinds[process.env.OTEL_EXPORTER_OTLP_PROTOCOL ?? 'http/protobuf']
const { OTLPTraceExporter } = await import(`@opentelemetry/exporter-trace-otlp-${kind}`)

const exporter = new Watched(new OTLPTraceExporter())
const processor = new BatchSpanProcessor(exporter)
const sdk = new NodeSDK({ spanProcessors: [processor] })
sdk.start()

for await (const _ of createInterface({ input: process.stdin })) {
  send(trace.getTracer('clients', '1.2.3'))
  await processor.forceFlush().catch(() => {})
  console.log(exporter.outcome.replaceAll('\n', ' '))
}
await sdk.shutdown().catch(() => {})
