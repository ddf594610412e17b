"""Sources of tables: folders, the hub, shards, mixtures, and data sets that mmtrain creates."""
