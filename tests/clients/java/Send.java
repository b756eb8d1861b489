import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Sends the known trace for each line of standard input, as OTEL_* say, and tells "sent" or "failed". */
public final class Send {
  private static final long START = 1_700_000_000_123_456_789L;
  private static volatile String outcome = "nothing was exported";

  /** Passes spans on to the exporter, and keeps what became of them. */
  private record Watched(SpanExporter exporter) implements SpanExporter {
    @Override
    public CompletableResultCode export(Collection<SpanData> spans) {
      CompletableResultCode result = exporter.export(spans);
      result.whenComplete(() -> outcome = result.isSuccess() ? "sent" : "failed: " + result.getFailureThrowable());
      return result;
    }

    @Override
    public CompletableResultCode flush() {
      return exporter.flush();
    }

    @Override
    public CompletableResultCode shutdown() {
      return exporter.shutdown();
    }
  }

  private static long after(long milliseconds) {
    return START + milliseconds * 1_000_000;
  }

  private static void send(Tracer tracer) {
    SpanContext linked =
        SpanContext.createFromRemoteParent(
            "0af7651916cd43dd8448eb211c80319c",
            "b7ad6b7169203331",
            TraceFlags.getSampled(),
            TraceState.builder().put("vendor", "value").build());
    Span root =
        tracer
            .spanBuilder("GET /orders/{id}")
            .setSpanKind(SpanKind.SERVER)
            .setStartTimestamp(START, TimeUnit.NANOSECONDS)
            .setAttribute("text", "héllo ✓ 😀 \"quoted\"\nline")
            .setAttribute("empty", "")
            .setAttribute("truth", true)
            .setAttribute("integer", 9007199254740993L)
            .setAttribute("negative", -42)
            .setAttribute("double", 0.1)
            .setAttribute(AttributeKey.stringArrayKey("texts"), List.of("a", "", "é"))
            .setAttribute(AttributeKey.longArrayKey("integers"), List.of(1L, -2L, 3L))
            .setAttribute(AttributeKey.doubleArrayKey("doubles"), List.of(0.5, -2.25))
            .setAttribute(AttributeKey.booleanArrayKey("booleans"), List.of(true, false))
            .addLink(linked, Attributes.of(AttributeKey.stringKey("why"), "because"))
            .startSpan();
    root.addEvent("a turn", Attributes.of(AttributeKey.longKey("n"), 1L), after(1), TimeUnit.NANOSECONDS);
    root.addEvent("nothing", after(2), TimeUnit.NANOSECONDS);
    root.setStatus(StatusCode.OK);
    Span query =
        tracer
            .spanBuilder("SELECT orders")
            .setParent(Context.root().with(root))
            .setSpanKind(SpanKind.CLIENT)
            .setStartTimestamp(after(100), TimeUnit.NANOSECONDS)
            .startSpan();
    query.setStatus(StatusCode.ERROR, "no such table");
    Span publish =
        tracer
            .spanBuilder("publish")
            .setParent(Context.root().with(query))
            .setSpanKind(SpanKind.PRODUCER)
            .setStartTimestamp(after(150), TimeUnit.NANOSECONDS)
            .startSpan();
    publish.end(after(160), TimeUnit.NANOSECONDS);
    query.end(after(200), TimeUnit.NANOSECONDS);
    root.end(after(1500), TimeUnit.NANOSECONDS);
  }

  public static void main(String[] arguments) throws Exception {
    var sdk =
        AutoConfiguredOpenTelemetrySdk.builder()
            .addSpanExporterCustomizer((exporter, properties) -> new Watched(exporter))
            .build()
            .getOpenTelemetrySdk();
    Tracer tracer = sdk.getTracer("clients", "1.2.3");
    var lines = new BufferedReader(new InputStreamReader(System.in));
    while (lines.readLine() != null) {
      send(tracer);
      sdk.getSdkTracerProvider().forceFlush().join(60, TimeUnit.SECONDS);
      System.out.println(outcome.replace('\n', ' '));
    }
    sdk.close();
  }
}
