// Sends the known trace for each line of standard input, as OTEL_EXPORTER_OTLP_* say, and tells "sent" or what failed.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

var start = time.Unix(1_700_000_000, 123_456_789)

func after(milliseconds int) trace.SpanEventOption {
	return trace.WithTimestamp(start.Add(time.Duration(milliseconds) * time.Millisecond))
}

// watched passes spans on to the exporter, and keeps what became of them.
type watched struct {
	sdk.SpanExporter
	outcome string
}

func (w *watched) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := w.SpanExporter.ExportSpans(ctx, spans)
	w.outcome = "sent"
	if err != nil {
		w.outcome = "failed: " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	return err
}

func exporter(ctx context.Context) (sdk.SpanExporter, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc" {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

func linked() trace.Link {
	traceID, _ := trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c")
	spanID, _ := trace.SpanIDFromHex("b7ad6b7169203331")
	state, _ := trace.ParseTraceState("vendor=value")
	return trace.Link{
		SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled, TraceState: state, Remote: true,
		}),
		Attributes: []attribute.KeyValue{attribute.String("why", "because")},
	}
}

func send(ctx context.Context, tracer trace.Tracer) {
	ctx, root := tracer.Start(ctx, "GET /orders/{id}",
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithTimestamp(start),
		trace.WithAttributes(
			attribute.String("text", "héllo ✓ 😀 \"quoted\"\nline"),
			attribute.String("empty", ""),
			attribute.Bool("truth", true),
			attribute.Int64("integer", 9007199254740993),
			attribute.Int64("negative", -42),
			attribute.Float64("double", 0.1),
			attribute.StringSlice("texts", []string{"a", "", "é"}),
			attribute.Int64Slice("integers", []int64{1, -2, 3}),
			attribute.Float64Slice("doubles", []float64{0.5, -2.25}),
			attribute.BoolSlice("booleans", []bool{true, false}),
		),
		trace.WithLinks(linked()),
	)
	root.AddEvent("a turn", after(1), trace.WithAttributes(attribute.Int("n", 1)))
	root.AddEvent("nothing", after(2))
	root.SetStatus(codes.Ok, "")
	ctx, query := tracer.Start(ctx, "SELECT orders", trace.WithSpanKind(trace.SpanKindClient), after(100))
	query.SetStatus(codes.Error, "no such table")
	_, publish := tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindProducer), after(150))
	publish.End(after(160))
	query.End(after(200))
	root.End(after(1500))
}

func main() {
	ctx := context.Background()
	inner, err := exporter(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	export := &watched{inner, "nothing was exported"}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(export))
	tracer := provider.Tracer("clients", trace.WithInstrumentationVersion("1.2.3"))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		send(ctx, tracer)
		_ = provider.ForceFlush(ctx)
		fmt.Println(export.outcome)
	}
	_ = provider.Shutdown(ctx)
}
