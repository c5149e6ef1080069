package sts

import (
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"strings"
)

const namespace = "https://sts.amazonaws.com/doc/2011-06-15/"

// refusal is an error as STS words it.
type refusal struct {
	status        int
	code, message string
}

func refuse(status int, code, message string) *refusal {
	return &refusal{status: status, code: code, message: message}
}

func incomplete(message string) *refusal {
	return refuse(http.StatusBadRequest, "IncompleteSignature", message)
}

func mismatch(message string) *refusal {
	return refuse(http.StatusForbidden, "SignatureDoesNotMatch", message)
}

func invalidToken() *refusal {
	return refuse(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
}

type identityAnswer struct {
	XMLName xml.Name `xml:"GetCallerIdentityResponse" json:"-"`
	XMLNS   string   `xml:"xmlns,attr" json:"-"`
	Result  struct {
		ARN     string `xml:"Arn" json:"Arn"`
		UserID  string `xml:"UserId" json:"UserId"`
		Account string
	} `xml:"GetCallerIdentityResult" json:"GetCallerIdentityResult"`
	Metadata struct {
		RequestID string `xml:"RequestId" json:"RequestId"`
	} `xml:"ResponseMetadata" json:"ResponseMetadata"`
}

type errorAnswer struct {
	XMLName xml.Name `xml:"ErrorResponse" json:"-"`
	XMLNS   string   `xml:"xmlns,attr" json:"-"`
	Error   struct {
		Type    string
		Code    string
		Message string
	}
	RequestID string `xml:"RequestId" json:"RequestId"`
}

func answerIdentity(w http.ResponseWriter, r *http.Request, i Identity) {
	a := identityAnswer{XMLNS: namespace}
	a.Result.ARN, a.Result.UserID, a.Result.Account = i.ARN, i.UserID, i.account()
	a.Metadata.RequestID = requestID(w)
	if acceptsJSON(r) {
		writeJSON(w, http.StatusOK, map[string]any{"GetCallerIdentityResponse": a})
		return
	}
	writeXML(w, http.StatusOK, a)
}

func answerError(w http.ResponseWriter, r *http.Request, e *refusal) {
	a := errorAnswer{XMLNS: namespace}
	a.Error.Type, a.Error.Code, a.Error.Message = "Sender", e.code, e.message
	a.RequestID = requestID(w)
	if acceptsJSON(r) {
		writeJSON(w, e.status, a)
		return
	}
	writeXML(w, e.status, a)
}

func acceptsJSON(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "application/json")
}

func requestID(w http.ResponseWriter) string {
	id := strings.ToLower(rand.Text())
	w.Header().Set("X-Amzn-Requestid", id)
	return id
}

func writeJSON(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

func writeXML(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	e.Encode(answer)
	io.WriteString(w, "\n")
}
