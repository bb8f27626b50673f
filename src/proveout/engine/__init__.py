"""The models: embedded, remote, echo; the embedder."""
