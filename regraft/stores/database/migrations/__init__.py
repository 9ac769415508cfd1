"""Steps by which an earlier Regraft's database gets today's tables; `regraft.stores.database.schema` takes them."""
