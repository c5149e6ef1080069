// Package samproxy adds to moto what its CloudFormation lacks: it transforms a SAM template with AWS's own translator,
// rejects invalid parameters as the template's constraints and rules require, and adds the asynchronous invocation
// settings and permissions that moto ignores or writes in another form.
//
//	caller --AWS_ENDPOINT_URL--> Proxy --all else--> moto
//	                               | CreateChangeSet, CreateStack, UpdateStack: the template, transformed
//	                               | ExecuteChangeSet: moto, and what it leaves out: invocation settings, connections
//	                               | DeleteStack: moto, and then the same
//	                               | DescribeStacks: the values of lists as they were given, and no secrets
//	                               | bucket policies: kept here, because moto applies them without their conditions (no TLS)
//	                               | Lambda's account settings: those of an account with default quotas
//
// It does not include anything that takes time (a stack is complete when the call returns), rollback, drift, stack
// policies, capabilities and the details of change sets. moto does not create again what a stack has had before.
package samproxy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	kopsaws "github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/test/template"
)

// Proxy is an endpoint in front of moto. Stop it with Close.
type Proxy struct {
	*httptest.Server
	moto  *url.URL
	to    *httputil.ReverseProxy
	mu    sync.Mutex
	plain map[[32]byte]*template.Template // by hash of the input
	rules map[string][]byte               // bucket policies, by bucket

	planned map[string]extra // by change set ID
	stacks  map[string]extra // by name
}

// extra is what moto does not keep of a stack or a change set.
type extra struct {
	async    async
	receiver receiver
	template string              // settled
	given    template.Parameters // as moto gets them
	changed  template.Parameters // those that are not the default
	secrets  template.Parameters // those with NoEcho, whose default is empty
	first    template.Parameters // given when the stack was created: moto compares with these
}

// async are the settings for asynchronous invocation, which moto ignores.
type async struct {
	function, failure string
	retries, age      int32
}

// Start serves on a free port of 127.0.0.1.
func Start(moto string) (*Proxy, error) {
	at, err := url.Parse(moto)
	if err != nil {
		return nil, fmt.Errorf("starting the proxy: %w", err)
	}
	p := &Proxy{moto: at, to: httputil.NewSingleHostReverseProxy(at), plain: map[[32]byte]*template.Template{},
		rules: map[string][]byte{}, planned: map[string]extra{}, stacks: map[string]extra{}}
	p.Server = httptest.NewServer(p)
	return p, nil
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch s3 := strings.Contains(r.Header.Get("Authorization"), "/s3/aws4_request"); {
	case s3 && r.URL.Query().Has("policy"):
		p.bucketPolicy(w, r)
		return
	case s3 && r.Method == http.MethodDelete:
		p.mu.Lock()
		delete(p.rules, strings.Trim(r.URL.Path, "/")) // of a bucket; objects have none
		p.mu.Unlock()
	case strings.HasSuffix(strings.TrimRight(r.URL.Path, "/"), "/account-settings"):
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}}`)
		return
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		p.to.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	switch form.Get("Action") {
	case "CreateChangeSet", "CreateStack", "UpdateStack":
		p.create(w, r, form)
	case "ExecuteChangeSet":
		p.execute(w, r, form)
	case "DeleteStack":
		p.delete(w, r, form)
	case "DescribeStacks":
		p.describe(w, r, form)
	default:
		p.pass(w, r, form)
	}
}

func (p *Proxy) config(region string) aws.Config {
	moto := p.moto.String()
	return kopsaws.PlainBodies(aws.Config{Region: region, BaseEndpoint: &moto, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
}

// bucketPolicy stores the policies that moto would apply without their conditions.
func (p *Proxy) bucketPolicy(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bucket := strings.Trim(r.URL.Path, "/")
	switch text, has := p.rules[bucket]; {
	case r.Method == http.MethodPut:
		text, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		p.rules[bucket] = text
		w.WriteHeader(http.StatusNoContent)
	case !has:
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `<Error><Code>NoSuchBucketPolicy</Code><Message>The bucket policy does not exist</Message></Error>`)
	default:
		w.Write(text)
	}
}

// pass forwards a request with the form.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, form url.Values) {
	body := []byte(form.Encode())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	p.to.ServeHTTP(w, r)
}

var codeIn = regexp.MustCompile(`(?m)^ +CodeUri: (s3://\S+)$`)

func (p *Proxy) create(w http.ResponseWriter, r *http.Request, form url.Values) {
	text, given := form.Get("TemplateBody"), template.Parameters{}
	if at := form.Get("TemplateURL"); at != "" {
		body, err := p.object(r.Context(), at)
		if err != nil {
			refuse(w, err.Error())
			return
		}
		text = body
		form.Del("TemplateURL")
	} else if len(text) > awsadmin.MaxTemplate {
		refuse(w, fmt.Sprintf("the template has %d bytes", len(text)))
		return
	}
	for i := 1; form.Get(fmt.Sprintf("Parameters.member.%d.ParameterKey", i)) != ""; i++ {
		at := fmt.Sprintf("Parameters.member.%d.", i)
		if name := form.Get(at + "ParameterKey"); form.Get(at+"UsePreviousValue") == "true" {
			value, err := p.parameter(r, form.Get("StackName"), name)
			if err != nil {
				refuse(w, err.Error())
				return
			}
			form.Set(at+"ParameterValue", value)
		}
		given[form.Get(at+"ParameterKey")] = form.Get(at + "ParameterValue")
	}
	code := codeIn.FindStringSubmatch(text)
	if !strings.Contains(text, "AWS::Serverless") || code == nil {
		refuse(w, "this is no SAM template with its code in a bucket")
		return
	}
	t, err := p.transform(text, code[1], given)
	if err != nil {
		refuse(w, err.Error())
		return
	}
	if why := t.Refuses(given); len(why) > 0 {
		refuse(w, strings.Join(why, "; "))
		return
	}
	settled, err := t.Settled(given)
	if err != nil {
		refuse(w, err.Error())
		return
	}
	form.Set("TemplateBody", string(settled))
	maps.DeleteFunc(form, func(name string, _ []string) bool { return strings.HasPrefix(name, "Parameters.member.") })
	changed, secrets := maps.Clone(given), template.Parameters{}
	for name, is := range t.Parameters {
		value, was := given[name]
		if is.NoEcho != nil {
			secrets[name] = value
		}
		if !was || is.Default == nil || string(*is.Default) != value {
			continue
		}
		delete(changed, name)
		if is.Type == "Number" { // moto takes it for another value than the same number by default
			delete(given, name)
		}
	}
	stack := t.Resolve(given)
	after := extra{async: leftOut(stack), receiver: receiverOf(stack), template: string(settled), given: given,
		changed: changed, secrets: secrets}
	n, sent := 0, given
	if form.Get("Action") == "CreateChangeSet" {
		sent = p.compared(nameOf(form.Get("StackName")), after)
	}
	for name, value := range sent {
		n++
		form.Set(fmt.Sprintf("Parameters.member.%d.ParameterKey", n), name)
		form.Set(fmt.Sprintf("Parameters.member.%d.ParameterValue", n), value)
	}
	direct := form.Get("Action") != "CreateChangeSet"
	var before extra
	if direct {
		before = p.receive(r, form, after)
	}
	answer := httptest.NewRecorder()
	p.pass(answer, r, form)
	if direct && answer.Code == http.StatusOK {
		p.settle(r, before, after)
	}
	if id := regexp.MustCompile(`<Id>([^<]+)</Id>`).FindStringSubmatch(answer.Body.String()); id != nil {
		p.mu.Lock()
		p.planned[id[1]] = after
		p.mu.Unlock()
	}
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	w.Write(answer.Body.Bytes())
}

// compared returns the parameters that let moto find a change if there is one. moto compares a change set with the
// template of the stack, but with the parameters of its creation, and ignores unknown ones.
func (p *Proxy) compared(stack string, after extra) template.Parameters {
	p.mu.Lock()
	now, is := p.stacks[stack]
	p.mu.Unlock()
	if is && now.template == after.template && maps.Equal(now.changed, after.changed) {
		return now.first
	}
	all := maps.Clone(after.given)
	if is && maps.Equal(now.first, after.given) {
		all["Changed"] = ""
	}
	return all
}

// listValue matches the value of a list parameter, which moto writes in Python's form.
var listValue = regexp.MustCompile(`<ParameterValue>\[[^<]*\]</ParameterValue>`)

// describe writes the values of parameters as CloudFormation does: of lists as they were given, and of those with
// NoEcho as stars.
func (p *Proxy) describe(w http.ResponseWriter, r *http.Request, form url.Values) {
	answer := httptest.NewRecorder()
	p.pass(answer, r, form)
	maps.Copy(w.Header(), answer.Header())
	w.Header().Del("Content-Length")
	w.WriteHeader(answer.Code)
	given := strings.NewReplacer("['", "", "']", "", "', '", ",", "[]", "")
	text := listValue.ReplaceAllStringFunc(answer.Body.String(), given.Replace)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stack := range p.stacks {
		for name := range stack.secrets {
			shown := regexp.MustCompile(`(<ParameterKey>` + name +
				`</ParameterKey>\s*)<ParameterValue( ?/>|>[^<]*</ParameterValue>)`)
			text = shown.ReplaceAllString(text, "$1<ParameterValue>"+awsadmin.HiddenValue+"</ParameterValue>")
		}
	}
	io.WriteString(w, text)
}

// parameter returns a parameter of a stack, which moto does not look up for a change set.
func (p *Proxy) parameter(r *http.Request, stack, name string) (string, error) {
	cfg := p.config(regionOf(r))
	cfg.BaseEndpoint = &p.URL
	out, err := cloudformation.NewFromConfig(cfg).DescribeStacks(r.Context(), &cloudformation.DescribeStacksInput{StackName: &stack})
	if err != nil {
		return "", err
	}
	for _, is := range out.Stacks[0].Parameters {
		if *is.ParameterKey != name {
			continue
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if value, is := p.stacks[nameOf(stack)].secrets[name]; is {
			return value, nil
		}
		return *is.ParameterValue, nil
	}
	return "", fmt.Errorf("the stack has no parameter %s", name)
}

// object reads a template at its URL: https://<bucket>.s3.<region>.amazonaws.com/<key>, or <endpoint>/<bucket>/<key> as
// the AWS CLI writes it for another endpoint.
func (p *Proxy) object(ctx context.Context, at string) (string, error) {
	parts := regexp.MustCompile(`^(?:https://([^./]+)\.s3\.([a-z0-9-]+)\.amazonaws\.com|http://127\.0\.0\.1:\d+/([^/]+))/(.+)$`).FindStringSubmatch(at)
	if parts == nil {
		return "", fmt.Errorf("TemplateURL must be a URL of S3: %s", at)
	}
	bucket, region := parts[1]+parts[3], cmp.Or(parts[2], template.Region)
	out, err := s3.NewFromConfig(p.config(region), func(o *s3.Options) { o.UsePathStyle = true }).GetObject(ctx,
		&s3.GetObjectInput{Bucket: &bucket, Key: &parts[4]})
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	return string(text), err
}

// transform caches its results, because the translator is deterministic.
func (p *Proxy) transform(text, code string, given template.Parameters) (*template.Template, error) {
	key := text
	for _, name := range slices.Sorted(maps.Keys(given)) {
		key += "\x00" + name + "=" + given[name]
	}
	sum := sha256.Sum256([]byte(key))
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.plain[sum]; t != nil {
		return t, nil
	}
	t, err := template.TransformText([]byte(text), code, given)
	if err == nil {
		p.plain[sum] = t
	}
	return t, err
}

func leftOut(s *template.Stack) (a async) {
	for _, r := range s.Resources {
		if r.Type != "AWS::Lambda::EventInvokeConfig" {
			continue
		}
		to := r.Properties["DestinationConfig"].(map[string]any)
		number := func(name string) int32 {
			n, _ := strconv.Atoi(fmt.Sprint(r.Properties[name]))
			return int32(n)
		}
		return async{function: r.Properties["FunctionName"].(string),
			failure: to["OnFailure"].(map[string]any)["Destination"].(string),
			retries: number("MaximumRetryAttempts"), age: number("MaximumEventAgeInSeconds")}
	}
	return a
}

func (p *Proxy) execute(w http.ResponseWriter, r *http.Request, form url.Values) {
	p.mu.Lock()
	after := p.planned[form.Get("ChangeSetName")]
	p.mu.Unlock()
	before := p.receive(r, form, after)
	p.pass(w, r, form)
	p.settle(r, before, after)
}

// receive creates or updates the receiver of a stack, before the rules that name it, and returns what the stack had.
func (p *Proxy) receive(r *http.Request, form url.Values, after extra) (before extra) {
	stack := nameOf(form.Get("StackName"))
	p.mu.Lock()
	before = p.stacks[stack]
	if after.first = before.first; after.first == nil || form.Get("Action") == "UpdateStack" {
		after.first = after.given
	}
	p.stacks[stack] = after
	p.mu.Unlock()
	if err := after.receiver.put(context.WithoutCancel(r.Context()), p.events(r)); err != nil {
		panic(fmt.Sprintf("what moto leaves out: %v", err))
	}
	return before
}

func (p *Proxy) events(r *http.Request) *eventbridge.Client {
	return eventbridge.NewFromConfig(p.config(regionOf(r)))
}

// settle adds to a stack what moto leaves out, and deletes the receiver that it no longer has.
func (p *Proxy) settle(r *http.Request, before, after extra) {
	ctx, client := context.WithoutCancel(r.Context()), lambda.NewFromConfig(p.config(regionOf(r)))
	err := before.receiver.delete(ctx, p.events(r), after.receiver)
	if a := after.async; a.function != "" {
		err = errors.Join(err, a.settle(ctx, client), permit(ctx, client, a.function))
	}
	if err != nil {
		panic(fmt.Sprintf("what moto leaves out: %v", err))
	}
}

func (p *Proxy) delete(w http.ResponseWriter, r *http.Request, form url.Values) {
	stack := nameOf(form.Get("StackName"))
	p.pass(w, r, form)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.stacks[stack].receiver.delete(context.WithoutCancel(r.Context()), p.events(r), receiver{}); err != nil {
		panic(fmt.Sprintf("what moto leaves out: %v", err))
	}
	delete(p.stacks, stack)
}

// nameOf returns the name of a stack, which may be given by its ARN.
func nameOf(stack string) string {
	if parts := strings.Split(stack, "/"); len(parts) > 1 {
		return parts[1]
	}
	return stack
}

// regionOf returns the region in the signature of a request to CloudFormation.
func regionOf(r *http.Request) string {
	_, after, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	if scope := strings.Split(after, "/"); len(scope) > 2 {
		return scope[2]
	}
	return ""
}

func (a async) settle(ctx context.Context, client *lambda.Client) error {
	_, err := client.PutFunctionEventInvokeConfig(ctx,
		&lambda.PutFunctionEventInvokeConfigInput{FunctionName: &a.function,
			MaximumRetryAttempts: &a.retries, MaximumEventAgeInSeconds: &a.age,
			DestinationConfig: &types.DestinationConfig{
				OnFailure: &types.OnFailure{Destination: &a.failure}}})
	return err
}

// permit writes a function's permissions as Lambda does. moto writes those of a stack in an invalid form.
func permit(ctx context.Context, client *lambda.Client, function string) error {
	out, err := client.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: &function})
	if err != nil {
		return err
	}
	var policy struct {
		Statement []struct {
			Sid, FunctionName string
			Condition         map[string]map[string]string
		}
	}
	if err := json.Unmarshal([]byte(aws.ToString(out.Policy)), &policy); err != nil {
		return err
	}
	for _, s := range policy.Statement {
		if s.FunctionName == "" {
			continue
		}
		source := s.Condition["ArnLike"]["AWS:SourceArn"]
		if _, err := client.RemovePermission(ctx,
			&lambda.RemovePermissionInput{FunctionName: &function, StatementId: &s.Sid}); err != nil {
			return err
		}
		_, err := client.AddPermission(ctx, &lambda.AddPermissionInput{FunctionName: &function, StatementId: &s.Sid,
			Action:    aws.String("lambda:InvokeFunction"),
			Principal: aws.String("events.amazonaws.com"), SourceArn: &source})
		if err != nil {
			return err
		}
	}
	return nil
}

// refuse responds with an error as CloudFormation does.
func refuse(w http.ResponseWriter, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>%s</Message></Error></ErrorResponse>`,
		strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(message))
}
