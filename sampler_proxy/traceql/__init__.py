"""The rule language TraceQL: text -> syntax tree (`parse`) -> what the scan reads and what decides (`plan`)."""
