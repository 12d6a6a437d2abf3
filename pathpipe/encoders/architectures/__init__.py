"""Networks that timm can't make as they stand: one file a family, each built around timm's parts where it has them."""
