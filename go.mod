module github.com/rolmail/rolmail

go 1.26
