package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/castai/kops-spot/test/bridge/pattern"
	"github.com/castai/kops-spot/test/lambdalocal"
)

// handler answers what is the bridge's to answer, and passes everything else on to moto.
func (b *Bridge) handler(moto *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: b.moto.http.Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(moto)
			// Moto puts the host into the URLs that it makes, of queues for example, and it is signed.
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			refuse(w, http.StatusBadGateway, "ServiceException", fmt.Sprintf("moto did not answer: %v", err))
		},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", b.serveInvoke)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("X-Amz-Target") {
		case "AWSEvents.PutEvents":
			b.putEvents(w, r)
			return
		case "AWSEvents.PutRule":
			if refusePattern(w, r) {
				return
			}
		}
		proxy.ServeHTTP(w, r)
	})
	return mux
}

// refusePattern answers PutRule if its pattern is one that EventBridge refuses and moto would not. Else it leaves the
// request as it was.
func refusePattern(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var in struct{ EventPattern string }
	if err != nil || json.Unmarshal(body, &in) != nil || in.EventPattern == "" {
		return false // moto's to refuse
	}
	if _, err := pattern.Parse([]byte(in.EventPattern)); err != nil {
		refuse(w, http.StatusBadRequest, "InvalidEventPatternException", "Event pattern is not valid. Reason: "+err.Error())
		return true
	}
	return false
}

// serveInvoke lets the local Lambda service answer for a function that moto holds.
func (b *Bridge) serveInvoke(w http.ResponseWriter, r *http.Request) {
	s, err := b.functions.service(r.Context(), functionKey{b.regionOf(r), bareName(r.PathValue("name"))})
	var refusal *lambdalocal.Error
	switch {
	case err == nil:
		s.ServeHTTP(w, r)
	case errors.As(err, &refusal):
		refuse(w, refusal.StatusCode, refusal.Code, refusal.Message)
	default:
		refuse(w, http.StatusInternalServerError, "ServiceException", err.Error())
	}
}

// regionOf is the region in the scope of a request's signature:
// "AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/<service>/aws4_request, …".
func (b *Bridge) regionOf(r *http.Request) string {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	if parts := strings.Split(scope, "/"); len(parts) == 5 {
		return parts[2]
	}
	return b.options.Region
}

// refuse answers with an error, in the form that the JSON protocols and Lambda's REST protocol share.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Amzn-ErrorType", code)
	answer(w, status, map[string]string{"__type": code, "message": message})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", newID())
	w.WriteHeader(status)
	w.Write(encode(body))
}
