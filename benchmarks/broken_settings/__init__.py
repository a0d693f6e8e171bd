"""Every command with every broken setting: none may crash, and none may show a secret."""
