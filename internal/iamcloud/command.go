package iamcloud

import (
	"reflect"
	"regexp"
	"strings"
)

// Command is the call as a command line of the AWS CLI, whose options are named as the fields of the SDK's inputs are. A
// document is in a file: see Document.
func (c Call) Command(region string) string {
	words := []string{"aws", c.service, kebab(c.op)}
	in := reflect.ValueOf(c.input).Elem()
	for i := range in.NumField() {
		field, value := in.Type().Field(i), in.Field(i)
		if !field.IsExported() || value.IsZero() {
			continue
		}
		option := "--" + kebab(field.Name)
		if c.file != "" && isDocument(field.Name) {
			words = append(words, option, "file://"+c.file)
			continue
		}
		words = append(words, option)
		words = append(words, shown(value)...)
	}
	if c.service != "iam" {
		words = append(words, "--region", region)
	}
	return strings.Join(words, " ")
}

// Document is the text that the call writes, and the name of the file in which its command finds it; empty if it writes
// none.
func (c Call) Document() (file, text string) {
	if c.file == "" {
		return "", ""
	}
	in := reflect.ValueOf(c.input).Elem()
	for i := range in.NumField() {
		if name := in.Type().Field(i).Name; isDocument(name) && !in.Field(i).IsZero() {
			return c.file, in.Field(i).Elem().String()
		}
	}
	return "", ""
}

func isDocument(field string) bool { return strings.HasSuffix(field, "PolicyDocument") }

// shown is an option's value; a switch has none.
func shown(v reflect.Value) []string {
	switch v.Kind() {
	case reflect.Pointer:
		return shown(v.Elem())
	case reflect.Bool:
		return nil
	case reflect.Slice:
		var all []string
		for i := range v.Len() {
			all = append(all, shown(v.Index(i))...)
		}
		return all
	case reflect.Struct: // a tag is the only one there is
		return []string{"Key=" + shellQuoted(v.FieldByName("Key").Elem().String()) + ",Value=" + shellQuoted(v.FieldByName("Value").Elem().String())}
	}
	return []string{shellQuoted(v.String())}
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=-]+$`)

func shellQuoted(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

var wordEnd = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// kebab writes a name as the AWS CLI does: UserName is user-name.
func kebab(name string) string {
	return strings.ToLower(wordEnd.ReplaceAllString(name, "$1-$2"))
}
