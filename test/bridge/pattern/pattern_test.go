package pattern

import (
	"strings"
	"testing"
)

// stateChange is the event of the User Guide's first example, and numbers and strings to compare.
const stateChange = `{
	"version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
	"detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2",
	"account": "111122223333", "time": "2017-12-22T18:43:48Z", "region": "us-west-1",
	"resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0", "other"],
	"detail": {
		"instance-id": "i-1234567890abcdef0", "state": "terminated",
		"count": 5, "price": 300.0, "zero": 0, "spot": true, "nothing": null, "empty": "", "quoted": "5",
		"source-ip": "10.0.0.33", "v6": "2001:db8::1", "path": "dir/lib/a*b\\c.png",
		"tags": [["a", "b"], "c"], "none": [], "void": {},
		"trigger": {"risk": 8},
		"employees": [{"first": "Anna", "last": "Smith"}, [{"first": "Peter", "last": "Jones"}]]
	}
}`

// detail is a pattern for a field of the event's detail.
func detail(field string) string { return `{"detail": {` + field + `}}` }

func TestMatching(t *testing.T) {
	for _, c := range []struct {
		name, pattern string
		want          bool
	}{
		{"the guide's first pattern", `{"source": ["aws.ec2"], "detail-type": ["EC2 Instance State-change Notification"], "detail": {"state": ["terminated"]}}`, true},
		{"one field does not match", `{"source": ["aws.ec2"], "detail": {"state": ["running"]}}`, false},
		{"another field does not match", `{"detail-type": ["EC2 Spot Instance Interruption Warning"], "detail": {"state": ["terminated"]}}`, false},
		{"one of several values", detail(`"state": ["running", "terminated"]`), true},
		{"strings are compared with their case", detail(`"state": ["Terminated"]`), false},
		{"a field that is not there", detail(`"other": ["terminated"]`), false},
		{"a field on another level", `{"state": ["terminated"]}`, false},
		{"an object where the event has a value", detail(`"state": {"is": ["terminated"]}`), false},
		{"a value where the event has an object", detail(`"trigger": [8]`), false},
		{"nested objects", detail(`"trigger": {"risk": [8]}`), true},

		{"an array of the event has the value", `{"resources": ["other"]}`, true},
		{"an array of the event lacks the value", `{"resources": ["another"]}`, false},
		{"an array in an array", detail(`"tags": ["b"]`), true},
		{"an operator on an array", `{"resources": [{"prefix": "arn:aws:ec2:"}]}`, true},
		{"objects in arrays", detail(`"employees": {"first": ["Peter"], "last": ["Jones"]}`), true},
		{"fields of two objects of an array", detail(`"employees": {"first": ["Anna"], "last": ["Jones"]}`), false},

		{"a number", detail(`"count": [5]`), true},
		{"a number in another notation", detail(`"price": [300]`), false},
		{"a number in its notation", detail(`"price": [300.0]`), true},
		{"a number for a string", detail(`"quoted": [5]`), false},
		{"a string for a number", detail(`"count": ["5"]`), false},
		{"true", detail(`"spot": [true]`), true},
		{"false", detail(`"spot": [false]`), false},
		{"true is not 1", detail(`"spot": [1]`), false},
		{"null", detail(`"nothing": [null]`), true},
		{"null is not the empty string", detail(`"empty": [null]`), false},
		{"null is not a missing field", detail(`"other": [null]`), false},
		{"the empty string", detail(`"empty": [""]`), true},

		{"prefix", `{"time": [{"prefix": "2017-12-22"}]}`, true},
		{"prefix of another", `{"time": [{"prefix": "2017-12-23"}]}`, false},
		{"prefix with another case", detail(`"state": [{"prefix": "TERM"}]`), false},
		{"prefix ignoring case", detail(`"state": [{"prefix": {"equals-ignore-case": "TERM"}}]`), true},
		{"prefix of a number", detail(`"count": [{"prefix": "5"}]`), false},
		{"suffix", detail(`"path": [{"suffix": ".png"}]`), true},
		{"suffix of another", detail(`"path": [{"suffix": ".gif"}]`), false},
		{"suffix ignoring case", detail(`"path": [{"suffix": {"equals-ignore-case": ".PNG"}}]`), true},
		{"equals-ignore-case", detail(`"state": [{"equals-ignore-case": "Terminated"}]`), true},
		{"equals-ignore-case of a part", detail(`"state": [{"equals-ignore-case": "Term"}]`), false},

		{"exists", detail(`"state": [{"exists": true}]`), true},
		{"exists, though null", detail(`"nothing": [{"exists": true}]`), true},
		{"exists, though not there", detail(`"other": [{"exists": true}]`), false},
		{"exists, an object", detail(`"trigger": [{"exists": true}]`), false},
		{"exists, an empty array", detail(`"none": [{"exists": true}]`), false},
		{"exists not", detail(`"other": [{"exists": false}]`), true},
		{"exists not, though there", detail(`"state": [{"exists": false}]`), false},
		{"exists not, an object", detail(`"trigger": [{"exists": false}]`), true},
		{"exists not, nor what it would be in", detail(`"other": {"one": [{"exists": false}]}`), true},
		{"exists not, in an empty object", detail(`"void": {"one": [{"exists": false}]}`), true},
		{"a value, or none", detail(`"other": ["a", {"exists": false}]`), true},

		{"anything-but", detail(`"state": [{"anything-but": "running"}]`), true},
		{"anything-but what it is", detail(`"state": [{"anything-but": "terminated"}]`), false},
		{"anything-but a list", detail(`"state": [{"anything-but": ["running", "stopped"]}]`), true},
		{"anything-but a list that has it", detail(`"state": [{"anything-but": ["running", "terminated"]}]`), false},
		{"anything-but, a field that is not there", detail(`"other": [{"anything-but": "running"}]`), false},
		{"anything-but, null", detail(`"nothing": [{"anything-but": "running"}]`), true},
		{"anything-but numbers", detail(`"count": [{"anything-but": [1, 2]}]`), true},
		{"anything-but the number it is", detail(`"count": [{"anything-but": 5}]`), false},
		{"anything-but, another element of the array", detail(`"tags": [{"anything-but": ["a", "b"]}]`), true},
		{"anything-but, all elements of the array", detail(`"tags": [{"anything-but": ["a", "b", "c"]}]`), false},
		{"anything-but a prefix", `{"region": [{"anything-but": {"prefix": "eu-"}}]}`, true},
		{"anything-but its prefix", `{"region": [{"anything-but": {"prefix": "us-"}}]}`, false},
		{"anything-but one of its prefixes", `{"region": [{"anything-but": {"prefix": ["eu-", "us-"]}}]}`, false},
		{"anything-but a prefix, a number", detail(`"count": [{"anything-but": {"prefix": "5"}}]`), true},
		{"anything-but its suffix", detail(`"path": [{"anything-but": {"suffix": ".png"}}]`), false},
		{"anything-but a suffix", detail(`"path": [{"anything-but": {"suffix": [".gif", ".txt"]}}]`), true},
		{"anything-but it in another case", detail(`"state": [{"anything-but": {"equals-ignore-case": ["x", "TERMINATED"]}}]`), false},
		{"anything-but its wildcard", detail(`"path": [{"anything-but": {"wildcard": "*/lib/*"}}]`), false},
		{"anything-but a wildcard", detail(`"path": [{"anything-but": {"wildcard": "*/bin/*"}}]`), true},

		{"numeric equal", detail(`"price": [{"numeric": ["=", 3.0e2]}]`), true},
		{"numeric not equal", detail(`"price": [{"numeric": ["=", 301]}]`), false},
		{"numeric in the range", detail(`"count": [{"numeric": [">", 0, "<=", 5]}]`), true},
		{"numeric out of the range", detail(`"count": [{"numeric": [">", 5, "<=", 10]}]`), false},
		{"numeric at the lower end", detail(`"count": [{"numeric": [">=", 5, "<", 6]}]`), true},
		{"numeric at the upper end", detail(`"count": [{"numeric": [">=", 1, "<", 5]}]`), false},
		{"numeric less", detail(`"count": [{"numeric": ["<", 10]}]`), true},
		{"numeric of zero", detail(`"zero": [{"numeric": [">=", 0]}]`), true},
		{"numeric of a string", detail(`"quoted": [{"numeric": ["=", 5]}]`), false},

		{"wildcard", detail(`"path": [{"wildcard": "dir/*.png"}]`), true},
		{"wildcard for nothing", detail(`"state": [{"wildcard": "term*inated*"}]`), true},
		{"wildcards in order", detail(`"path": [{"wildcard": "*lib*c.*"}]`), true},
		{"wildcards out of order", detail(`"path": [{"wildcard": "*c.*lib*"}]`), false},
		{"wildcard, its ends overlapping", detail(`"quoted": [{"wildcard": "5*5"}]`), false},
		{"no wildcard", detail(`"state": [{"wildcard": "terminate"}]`), false},
		{"wildcard escaped", detail(`"path": [{"wildcard": "*a\\*b\\\\c*"}]`), true},
		{"wildcard escaped, another character there", detail(`"path": [{"wildcard": "dir\\*lib*"}]`), false},
		{"wildcard of a number", detail(`"count": [{"wildcard": "*"}]`), false},

		{"cidr", detail(`"source-ip": [{"cidr": "10.0.0.0/24"}]`), true},
		{"cidr of another network", detail(`"source-ip": [{"cidr": "10.0.1.0/24"}]`), false},
		{"cidr of version 6", detail(`"v6": [{"cidr": "2001:db8::/32"}]`), true},
		{"cidr of no address", detail(`"state": [{"cidr": "10.0.0.0/8"}]`), false},

		{"$or", detail(`"$or": [{"state": ["running"]}, {"count": [{"numeric": ["<", 10]}]}]`), true},
		{"$or of none", detail(`"$or": [{"state": ["running"]}, {"count": [6]}]`), false},
		{"$or and a field", detail(`"state": ["running"], "$or": [{"count": [5]}, {"spot": [true]}]`), false},
		{"$or with an and in it", detail(`"$or": [{"state": ["terminated"], "count": [6]}, {"spot": [false]}]`), false},
		{"$or in $or", `{"$or": [{"source": ["x"]}, {"region": ["us-west-1"], "$or": [{"account": ["x"]}, {"version": ["0"]}]}]}`, true},
		{"$or as the name of a field", `{"$or": {"state": ["terminated"]}}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := Parse([]byte(c.pattern))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := p.Matches([]byte(stateChange)); err != nil || got != c.want {
				t.Errorf("%s: got %v, %v, want %v", c.pattern, got, err, c.want)
			}
		})
	}
}

// TestInvalidPatterns: each is refused, and the message says where and why.
func TestInvalidPatterns(t *testing.T) {
	for _, c := range []struct{ pattern, says string }{
		{``, "EOF"},
		{`{"source": ["a"]} {}`, "more after its end"},
		{`["source"]`, "not an object"},
		{`null`, "not an object"},
		{`{}`, "the pattern: an object must not be empty"},
		{detail(``), "detail: an object must not be empty"},
		{`{"source": "aws.ec2"}`, `source: "aws.ec2" must be an object or an array`},
		{detail(`"count": 5`), "detail.count: 5 must be"},
		{detail(`"nothing": null`), "detail.nothing: null must be"},
		{`{"source": []}`, "source: an array must not be empty"},
		{`{"source": [["a"]]}`, "source: an array in an array"},
		{`{"source": [{}]}`, "one operator"},
		{`{"source": [{"prefix": "a", "suffix": "b"}]}`, "one operator"},
		{`{"source": [{"prefx": "a"}]}`, `source: unknown operator "prefx"`},
		{`{"source": [{"Prefix": "a"}]}`, `unknown operator "Prefix"`},
		{`{"source": [{"prefix": 1}]}`, "prefix: 1 is not a string"},
		{`{"source": [{"prefix": ["a", "b"]}]}`, "is not a string"},
		{`{"source": [{"prefix": {"suffix": "a"}}]}`, `unknown operator "suffix"`},
		{`{"source": [{"suffix": null}]}`, "suffix: null is not a string"},
		{`{"source": [{"equals-ignore-case": ["a"]}]}`, "is not a string"},
		{`{"source": [{"exists": "true"}]}`, "neither true nor false"},
		{`{"source": [{"anything-but": null}]}`, "anything-but: null is not"},
		{`{"source": [{"anything-but": true}]}`, "anything-but: true is not"},
		{`{"source": [{"anything-but": []}]}`, "anything-but: [] is not"},
		{`{"source": [{"anything-but": ["a", 1]}]}`, "is not a string or a number"},
		{`{"source": [{"anything-but": {"prefix": ""}}]}`, "the string is empty"},
		{`{"source": [{"anything-but": {"suffix": []}}]}`, "the list is empty"},
		{`{"source": [{"anything-but": {"prefix": {"equals-ignore-case": "a"}}}]}`, "is not a string"},
		{`{"source": [{"anything-but": {"numeric": ["<", 5]}}]}`, `unknown operator "numeric"`},
		{`{"source": [{"numeric": []}]}`, "is not a list of"},
		{`{"source": [{"numeric": [">", 1, "<"]}]}`, "is not a list of"},
		{`{"source": [{"numeric": ["<>", 1]}]}`, "unknown operator"},
		{`{"source": [{"numeric": [">", "1"]}]}`, `"1" is not a number`},
		{`{"source": [{"numeric": [">", 6e9]}]}`, "6e9 is not between"},
		{`{"source": [{"numeric": ["<", 5, ">", 1]}]}`, "lower end first"},
		{`{"source": [{"numeric": [">", 5, "<", 5]}]}`, "lower end first"},
		{`{"source": [{"wildcard": "a**b"}]}`, "two wildcards in a row"},
		{`{"source": [{"wildcard": "a\\b"}]}`, "backslash"},
		{`{"source": [{"wildcard": "a\\"}]}`, "backslash"},
		{`{"source": [{"wildcard": 1}]}`, "wildcard: 1 is not a string"},
		{`{"source": [{"cidr": "10.0.0.1"}]}`, "is not a network"},
		{`{"source": [{"cidr": 10}]}`, "is not a network"},
		{`{"$or": [{"source": ["a"]}]}`, "$or: there must be two"},
		{`{"$or": [{"source": ["a"]}, "b"]}`, `$or: "b" is not an object`},
		{`{"$or": [{"source": ["a"]}, {"source": [{"prefx": "a"}]}]}`, `$or.source: unknown operator`},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			t.Parallel()
			if p, err := Parse([]byte(c.pattern)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, %v, want an error with %q", p, err, c.says)
			}
		})
	}
}

func TestWhatIsNoEventIsAnError(t *testing.T) {
	p, err := Parse([]byte(`{"source": [{"exists": false}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{``, `[]`, `"source"`, `{"source": }`} {
		if got, err := p.Matches([]byte(event)); err == nil || got {
			t.Errorf("%q: got %v, %v", event, got, err)
		}
	}
}
