package view

import "github.com/rolmail/rolmail/lib/when"

// Filter is an option that narrows a search or what is followed.
type Filter struct {
	Name, Usage string
	List        bool // may be repeated, and each value be a list
}

// Filters are the options that search and follow share.
var Filters = []Filter{
	{Name: "since", Usage: "from this `TIME` on, such as 2h, today or yesterday 14:00"},
	{Name: "until", Usage: "before this `TIME`"},
	{Name: "sender", Usage: "envelope sender: `ADDRESS`, @domain, user@, a pattern with *, or <>"},
	{Name: "rcpt", Usage: "recipient, also before aliases: `ADDRESS`, @domain, user@, or a pattern with *"},
	{Name: "client", Usage: "who brought it: `ADDRESS`, network such as 192.0.2.0/24, or name, also with *"},
	{Name: "helo", Usage: "the client's `NAME` for itself, also with *"},
	{Name: "queue-id", Usage: "queue `ID` at one of our servers or at the next one"},
	{Name: "message-id", Usage: "Message-`ID`, with or without <>"},
	{Name: "outcome", List: true, Usage: "`OUTCOME` or list: sent, deferred, bounced, expired, rejected, discarded, " +
		"quarantined, held, aborted, unknown"},
	{Name: "kind", List: true, Usage: "`KIND` of row, or list: mail, reject, abort"},
	{Name: "verdict", List: true, Usage: "what the filter found: `VERDICT` or list, such as SPAM,BANNED"},
	{Name: "text", Usage: "`WORDS` that all occur in addresses, subject, reason, client, ids, ..."},
}

// What --help says.
const (
	About = "Searches what rol-logpipe has made of the mail logs: a row for each mail and recipient, each " +
		"refused recipient and each broken-off session. Nothing is changed.\n\n" +
		"Examples:\n" +
		"  rol-maillog search --rcpt anna@example.com --since yesterday\n" +
		"  rol-maillog search --outcome rejected --since 2h\n" +
		"  rol-maillog show 4jYCqZ2VSWz1TZ2P\n" +
		"  rol-maillog follow --domain example.com"
	AboutSearch = "Shows the rows that meet all that is asked, newest first. The status is 1 if there are none.\n\n" +
		"Times: " + when.Forms + ".\n\n" +
		"--domain is for a customer's eyes: mail to that domain, and mail that the domain really sent. " +
		"Mail with a forged sender is not shown to the one whose name was used.\n\n" +
		"Examples:\n" +
		"  rol-maillog search --rcpt anna@example.com\n" +
		"  rol-maillog search --client 192.0.2.0/24 --outcome rejected,aborted\n" +
		"  rol-maillog search --text 'invoice 4711' --since monday\n" +
		"  rol-maillog search --since yesterday --until today --format csv >y.csv"
	AboutShow = "Tells who brought a mail and from where, what each server did and how long it took, what the " +
		"filter found, what the last word was and who said it. An id is the row's, or the beginning of it.\n\n" +
		"Examples:\n" +
		"  rol-maillog show 4jYCqZ2VSWz1TZ2P\n" +
		"  rol-maillog show '<lab24.11@sender.example>'\n" +
		"  rol-maillog show --format json 01a2097db2662c91"
	AboutFollow = "Shows rows that are new or have changed, until it is interrupted.\n\n" +
		"Examples:\n" +
		"  rol-maillog follow\n" +
		"  rol-maillog follow --outcome deferred,bounced --format json"
)
