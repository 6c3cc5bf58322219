package suggest

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"since", "until", "domain", "db", "dry-run"}
	for word, want := range map[string]string{
		"sicne": "since", "untl": "until", "doma": "domain", "dry": "dry-run", "dp": "db", "since": "since",
		"d": "db", "x": "", "": "", "nothing-like-it": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
	if got := DidYouMean("sinc", "--", known); got != "; did you mean --since?" {
		t.Errorf("DidYouMean: %q", got)
	}
	if got := DidYouMean("xyz", "--", known); got != "" {
		t.Errorf("DidYouMean: %q", got)
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"since", "since", 0}, {"sicne", "since", 2}, {"untl", "until", 1}, {"kitten", "sitting", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
