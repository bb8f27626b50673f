"""From documents to cited passages: parse, chunk, embed, index, search, cite."""
