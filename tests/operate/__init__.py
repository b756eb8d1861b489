"""What operators see and do: ports, reload, explanations, previews."""
