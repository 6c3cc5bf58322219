package command

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/rolmail/rolmail/lib/term"
)

const (
	helpIndent = 3
	helpColumn = 24 // where the words about an option begin
)

// commandsOf are the commands that the program or the last one of path has.
func commandsOf(app *cli.App, path []*cli.Command) []*cli.Command {
	if n := len(path); n > 0 {
		return path[n-1].Subcommands
	}
	return app.Commands
}

func fullName(app *cli.App, path []*cli.Command) string {
	name := app.Name
	for _, c := range path {
		name += " " + c.Name
	}
	return name
}

// writeHelp writes the help of the program, or of the last command of path.
func writeHelp(w io.Writer, app *cli.App, path []*cli.Command) error {
	usage, description := app.Usage, app.Description
	if n := len(path); n > 0 {
		usage, description = path[n-1].Usage, path[n-1].Description
	}
	about, examples, _ := strings.Cut("\n"+description, "\nExamples:\n")
	var b strings.Builder
	fmt.Fprintf(&b, "%s - %s\n\n", fullName(app, path), usage)
	helpUsage(&b, app, path)
	if about = strings.Trim(about, "\n"); about != "" {
		b.WriteString("DESCRIPTION\n")
		for paragraph := range strings.SplitSeq(about, "\n\n") {
			helpParagraph(&b, paragraph)
			b.WriteByte('\n')
		}
	}
	helpCommands(&b, app, path)
	own := "OPTIONS\n"
	for _, c := range path {
		helpFlags(&b, strings.ToUpper(c.Name)+" OPTIONS\n", c.Flags)
		own = "GLOBAL OPTIONS\n"
	}
	helpFlags(&b, own, app.Flags)
	if examples = strings.Trim(examples, "\n"); examples != "" {
		b.WriteString("EXAMPLES\n")
		for line := range strings.SplitSeq(examples, "\n") {
			b.WriteString(strings.TrimRight(" "+line, " ") + "\n")
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, strings.TrimRight(b.String(), "\n")+"\n")
	return err
}

// helpUsage writes the USAGE section.
func helpUsage(b *strings.Builder, app *cli.App, path []*cli.Command) {
	argsUsage, usageText := app.ArgsUsage, app.UsageText
	if n := len(path); n > 0 {
		argsUsage, usageText = path[n-1].ArgsUsage, path[n-1].UsageText
	}
	b.WriteString("USAGE\n")
	if usageText == "" {
		usageText = fullName(app, path)
		if commands := commandsOf(app, path); len(commands) > 0 {
			usageText += " " + strings.Join(names(commands), "|")
		}
		usageText += " [OPTION]..."
		if argsUsage != "" {
			usageText += " " + argsUsage
		}
	}
	for line := range strings.SplitSeq(strings.Trim(usageText, "\n"), "\n") {
		wrap(b, line, helpIndent, helpIndent+len(app.Name)+1)
	}
	b.WriteByte('\n')
}

// helpCommands writes the COMMANDS section.
func helpCommands(b *strings.Builder, app *cli.App, path []*cli.Command) {
	commands := commandsOf(app, path)
	if len(commands) == 0 {
		return
	}
	b.WriteString("COMMANDS\n")
	for _, c := range commands {
		if !c.Hidden {
			helpItem(b, strings.Join(c.Names(), ", "), c.Usage)
		}
	}
	b.WriteByte('\n')
}

// helpFlags writes a section of options.
func helpFlags(b *strings.Builder, title string, flags []cli.Flag) {
	if len(flags) == 0 {
		return
	}
	b.WriteString(title)
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		if d, ok := f.(cli.DocGenerationFlag); ok {
			helpFlag(b, d)
		}
	}
	b.WriteByte('\n')
}

// nothing are the defaults that stand for none: urfave cannot tell them from
// values that are meant. Say in the usage what such a default means.
var nothing = []string{"", "0", "0s", "[]"}

// helpFlag writes one option. As in urfave, a word in backquotes in its usage
// names its value.
func helpFlag(b *strings.Builder, f cli.DocGenerationFlag) {
	var short, long []string
	for _, name := range f.Names() {
		if utf8.RuneCountInString(name) == 1 {
			short = append(short, "-"+name)
		} else {
			long = append(long, "--"+name)
		}
	}
	left := strings.Join(append(short, long...), ", ")
	usage := f.GetUsage()
	value := "VALUE"
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		if word, after, ok := strings.Cut(rest, "`"); ok {
			value = word
			usage = before + word + after
		}
	}
	if f.TakesValue() {
		left += " " + value
	}
	if s, ok := f.(cli.DocGenerationSliceFlag); ok && s.IsSliceFlag() {
		usage += "; may be repeated"
	}
	if text := strings.ReplaceAll(f.GetDefaultText(), `"`, ""); f.TakesValue() && !slices.Contains(nothing, text) {
		usage += " (default: " + text + ")"
	}
	for _, env := range f.GetEnvVars() {
		usage += " (or $" + env + ")"
	}
	helpItem(b, left, strings.TrimPrefix(strings.TrimSpace(usage), "; "))
}

// helpItem writes a term and what is said about it, beside it or below.
func helpItem(b *strings.Builder, left, right string) {
	fmt.Fprintf(b, "%*s%s", helpIndent, "", left)
	pad := helpColumn - helpIndent - utf8.RuneCountInString(left)
	if pad < 2 {
		b.WriteByte('\n')
		pad = helpColumn
	}
	if right == "" {
		b.WriteByte('\n')
		return
	}
	b.WriteString(strings.Repeat(" ", pad))
	var text strings.Builder
	wrap(&text, right, helpColumn, helpColumn)
	b.WriteString(text.String()[helpColumn:])
}

// helpParagraph wraps a paragraph; lines that begin with white space stay.
func helpParagraph(b *strings.Builder, paragraph string) {
	var words []string
	flush := func() {
		if len(words) > 0 {
			wrap(b, strings.Join(words, " "), helpIndent, helpIndent)
		}
		words = words[:0]
	}
	for line := range strings.SplitSeq(strings.Trim(paragraph, "\n"), "\n") {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			flush()
			fmt.Fprintf(b, "%*s%s\n", helpIndent, "", strings.ReplaceAll(line, "\t", "  "))
			continue
		}
		words = append(words, strings.Fields(line)...)
	}
	flush()
}

// wrap writes words in lines of term.DefaultWidth columns: the first indented
// by first, the others by rest.
func wrap(b *strings.Builder, text string, first, rest int) {
	b.WriteString(strings.Repeat(" ", first))
	column := first
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > term.DefaultWidth-1:
			b.WriteString("\n" + strings.Repeat(" ", rest))
			column = rest
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteByte('\n')
}
