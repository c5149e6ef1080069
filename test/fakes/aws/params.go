package aws

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spottest"
)

// params are the parameters of a call. Parameters that the operation has not read are unknown.
type params struct {
	form url.Values
	used map[string]bool
}

func (p *params) value(name string) string {
	p.used[name] = true
	return p.form.Get(name)
}

// list reads <prefix>.1, <prefix>.2, …
func (p *params) list(prefix string) []string {
	var vs []string
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s.%d", prefix, n)
		if !p.form.Has(name) {
			return vs
		}
		vs = append(vs, p.value(name))
	}
}

// tags reads Tag.1.Key and Tag.1.Value, Tag.2.Key, …
func (p *params) tags() map[string]string {
	tags := map[string]string{}
	for n := 1; p.form.Has(fmt.Sprintf("Tag.%d.Key", n)); n++ {
		tags[p.value(fmt.Sprintf("Tag.%d.Key", n))] = p.value(fmt.Sprintf("Tag.%d.Value", n))
	}
	return tags
}

// filters reads Filter.1.Name and Filter.1.Value.1, Filter.1.Value.2, …; Filter.2.Name, …
func (p *params) filters() []spottest.Filter {
	var filters []spottest.Filter
	for n := 1; p.form.Has(fmt.Sprintf("Filter.%d.Name", n)); n++ {
		filters = append(filters,
			spottest.Filter{Name: p.value(fmt.Sprintf("Filter.%d.Name", n)),
				Values: p.list(fmt.Sprintf("Filter.%d.Value", n))})
	}
	return filters
}

// only checks a parameter that supports one value.
func (p *params) only(name, want string) error {
	if v := p.value(name); v != want {
		return &spottest.AWSError{Code: "ValidationError", HTTPStatus: 400,
			Message: fmt.Sprintf("%s must be %s here, not %q", name, want, v)}
	}
	return nil
}

// unknown returns an error about parameters that were not read.
func (p *params) unknown() error {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(p.form)) {
		if !p.used[name] {
			names = append(names, name)
		}
	}
	if names == nil {
		return nil
	}
	return &spottest.AWSError{Code: "UnknownParameter", HTTPStatus: 400,
		Message: "The fake does not know the parameters " + strings.Join(names, ", ") + " of this action."}
}
