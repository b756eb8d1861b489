// The known trace, by the API of OpenTelemetry alone.

import { context, createTraceState, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'

const START = [1700000000, 123456789]
const after = milliseconds => [
  START[0] + Math.floor((123 + milliseconds) / 1000),
  ((123 + milliseconds) % 1000) * 1e6 + 456789
]

export function send (tracer) {
  const root = tracer.startSpan('GET /orders/{id}', {
    kind: SpanKind.SERVER,
    startTime: START,
    attributes: {
      text: 'héllo ✓ 😀 "quoted"\nline',
      empty: '',
      truth: true,
      integer: 9007199254740994, // a number of JavaScript holds no odd ones beyond 2 ** 53
      negative: -42,
      double: 0.1,
      texts: ['a', '', 'é'],
      integers: [1, -2, 3],
      doubles: [0.5, -2.25],
      booleans: [true, false]
    },
    links: [{
      context: {
        traceId: '0af7651916cd43dd8448eb211c80319c',
        spanId: 'b7ad6b7169203331',
        traceFlags: 1,
        traceState: createTraceState('vendor=value'),
        isRemote: true
      },
      attributes: { why: 'because' }
    }]
  })
  root.addEvent('a turn', { n: 1 }, after(1))
  root.addEvent('nothing', {}, after(2))
  root.setStatus({ code: SpanStatusCode.OK })
  const query = tracer.startSpan(
    'SELECT orders', { kind: SpanKind.CLIENT, startTime: after(100) }, trace.setSpan(context.active(), root))
  query.setStatus({ code: SpanStatusCode.ERROR, message: 'no such table' })
  const publish = tracer.startSpan(
    'publish', { kind: SpanKind.PRODUCER, startTime: after(150) }, trace.setSpan(context.active(), query))
  publish.end(after(160))
  query.end(after(200))
  root.end(after(1500))
}
