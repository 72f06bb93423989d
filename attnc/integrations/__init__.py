"""Other libraries' doors into attnc."""
