package castai

import (
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	key, read := inTurn(secret)
	for _, c := range []struct {
		name string
		o    Options
		want []string // nil: valid
	}{
		{"the least", Options{ClusterID: clusterID, Key: key}, nil},
		{"another region", Options{ClusterID: clusterID, Key: key, URL: "https://api.eu.cast.ai"}, nil},
		{"behind a gateway", Options{ClusterID: strings.ToUpper(clusterID), Key: key,
			URL: "https://gateway.example:8443/castai/"}, nil},
		{"localhost by IP", Options{ClusterID: clusterID, Key: key, URL: "http://127.0.0.1:8080"}, nil},
		{"localhost by IPv6", Options{ClusterID: clusterID, Key: key, URL: "http://[::1]:8080"}, nil},
		{"localhost by name", Options{ClusterID: clusterID, Key: key, URL: "http://localhost:8080"}, nil},
		{"nothing", Options{}, []string{"is not a UUID: copy it from the URL", "the API key is missing: create one"}},
		{"a name as the ID", Options{ClusterID: "prod.example.com", Key: key}, []string{"is not a UUID"}},
		{"a path as the ID", Options{ClusterID: clusterID + "/../x", Key: key}, []string{"is not a UUID"}},
		{"a key as the ID", Options{ClusterID: secret, Key: key}, []string{"is not a UUID"}},
		{"a key as the URL", Options{ClusterID: clusterID, Key: key, URL: secret},
			[]string{"does not begin with https:// and a host: use https://api.cast.ai"}},
		{"unencrypted", Options{ClusterID: clusterID, Key: key, URL: "http://api.cast.ai"},
			[]string{"would send the API key unencrypted"}},
		{"localhost as a subdomain", Options{ClusterID: clusterID, Key: key, URL: "http://localhost.example.com"},
			[]string{"unencrypted"}},
		{"another scheme", Options{ClusterID: clusterID, Key: key, URL: "ftp://api.cast.ai"},
			[]string{"does not begin with https://"}},
		{"no scheme", Options{ClusterID: clusterID, Key: key, URL: "api.cast.ai"},
			[]string{"does not begin with https://"}},
		{"no host", Options{ClusterID: clusterID, Key: key, URL: "https:///v1"},
			[]string{"does not begin with https:// and a host"}},
		{"a password", Options{ClusterID: clusterID, Key: key, URL: "https://me:c4st@api.cast.ai"},
			[]string{"contains a user name or password: remove it"}},
		{"a query", Options{ClusterID: clusterID, Key: key, URL: "https://api.cast.ai?key=c4st"},
			[]string{"has a query or fragment"}},
		{"a fragment", Options{ClusterID: clusterID, Key: key, URL: "https://api.cast.ai/#c4st"},
			[]string{"has a query or fragment"}},
		{"unreadable", Options{ClusterID: clusterID, Key: key, URL: "https://c4st:port"}, []string{"is invalid"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.o.Check()
			if c.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			if got := len(strings.Split(err.Error(), "\n")); got != len(c.want) {
				t.Errorf("%d lines: %v", got, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "c4st") {
				t.Errorf("a possible secret is in: %v", err)
			}
		})
	}
	if read.Load() != 0 {
		t.Error("the key was read")
	}
}
