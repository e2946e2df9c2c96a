module stoa.invalid/unicode

go 1.21
