// Passes spans on to an exporter, and keeps what became of them.

export class Watched {
  constructor (exporter) {
    this.exporter = exporter
    this.outcome = 'nothing was exported'
  }

  export (spans, done) {
    this.exporter.export(spans, result => {
      this.outcome = result.code === 0 ? 'sent' : `failed: ${result.error}`
      done(result)
    })
  }

  forceFlush () {
    return this.exporter.forceFlush()
  }

  shutdown () {
    return this.exporter.shutdown()
  }
}
