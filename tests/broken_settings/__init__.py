"""Every command with every broken setting: none may end as a bug, and none may show a secret."""
