"""The steps by which a database made by an earlier Regraft gets today's tables; `regraft.schema` takes them."""
