package onboard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

// note is what we note in an object about what in it is ours, so that a later run can tell it from what others have put
// there, and take away exactly that.
type note struct {
	Created bool             `json:"created,omitempty"` // the object is ours
	Grants  map[string]grant `json:"grants,omitempty"`  // by ARN
}

func noteOf(o object) (note, error) {
	n := note{Grants: map[string]grant{}}
	said := textAt(o, "metadata", "annotations", annotationMapped)
	if said == "" {
		return n, nil
	}
	if err := json.Unmarshal([]byte(said), &n); err != nil {
		return n, fmt.Errorf("reading the annotation %s, in which kops-spot notes what is its own: remove it if it is not known who has changed it: %w",
			annotationMapped, err)
	}
	return n, nil
}

// write puts the note into an object; where nothing is ours, it goes.
func (n note) write(o object) error {
	if len(n.Grants) == 0 {
		unset(o, "metadata", "annotations", annotationMapped)
		return nil
	}
	said, err := json.Marshal(n)
	if err != nil {
		return err
	}
	set(o, string(said), "metadata", "annotations", annotationMapped)
	return nil
}

// of is the grant to an ARN; nil if none is noted.
func (n note) of(arn string) *grant {
	for noted, g := range n.Grants {
		if strings.EqualFold(noted, arn) {
			return &g
		}
	}
	return nil
}

// keep notes a grant; one that gives nothing is none.
func (n note) keep(arn string, g grant) {
	maps.DeleteFunc(n.Grants, func(noted string, _ grant) bool { return strings.EqualFold(noted, arn) })
	if g.Username != "" || len(g.Groups) > 0 {
		n.Grants[arn] = g
	}
}

// fingerprint tells whether the grants are still the same; empty for none.
func (n note) fingerprint() string {
	if len(n.Grants) == 0 {
		return ""
	}
	said, _ := json.Marshal(n.Grants) // of strings alone: it cannot fail
	sum := sha256.Sum256(said)
	return hex.EncodeToString(sum[:6])
}
