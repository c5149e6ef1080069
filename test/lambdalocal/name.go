package lambdalocal

import "strings"

const latest = "$LATEST"

// reference is how a caller names a function. The empty field was left out.
type reference struct {
	region, account, name, qualifier string
}

// parseReference reads the three formats of Invoke's FunctionName: a name, a
// partial ARN (123456789012:function:name) and a full ARN, each with or without
// a qualifier.
func parseReference(s string) (reference, bool) {
	var r reference
	parts := strings.Split(s, ":")
	if len(parts) >= 7 && parts[0] == "arn" && parts[2] == "lambda" {
		r.region = parts[3]
		parts = parts[4:]
	}
	if len(parts) >= 3 && parts[1] == "function" {
		r.account = parts[0]
		parts = parts[2:]
	}
	if len(parts) == 2 {
		r.qualifier = parts[1]
		parts = parts[:1]
		if r.qualifier == "" {
			return reference{}, false
		}
	}
	if len(parts) != 1 || !validFunctionName(parts[0]) {
		return reference{}, false
	}
	r.name = parts[0]
	return r, true
}

func validFunctionName(s string) bool {
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 64
}

// lookUp finds the function that FunctionName and Qualifier mean, and the ARN
// under which it was called, which is what the function gets to see.
func (s *Service) lookUp(name, qualifier string) (*function, string, error) {
	ref, ok := parseReference(name)
	if !ok {
		return nil, "", errValidation("functionName", name, "a function name, a partial ARN or an ARN")
	}
	if ref.qualifier != "" && qualifier != "" && ref.qualifier != qualifier {
		return nil, "", errQualifierMismatch()
	}
	if ref.qualifier == "" {
		ref.qualifier = qualifier
	}
	arn := "arn:aws:lambda:" + s.options.Region + ":" + s.options.AccountID + ":function:" + ref.name
	if ref.qualifier != "" {
		arn += ":" + ref.qualifier
	}
	fn := s.functions[ref.name]
	here := (ref.region == "" || ref.region == s.options.Region) && (ref.account == "" || ref.account == s.options.AccountID)
	if fn == nil || !here || ref.qualifier != "" && ref.qualifier != latest {
		return nil, "", errNotFound(arn)
	}
	return fn, arn, nil
}
