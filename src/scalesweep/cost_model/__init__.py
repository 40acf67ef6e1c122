"""What stages take: operations, time, memory, money. Arithmetic alone: no store, no plan."""
