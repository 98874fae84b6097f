//! The attributes of `wasmeter-guest`. Use them through that crate.

use proc_macro::{Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// Makes a function the handler of this component.
///
/// The function takes one `Request` and returns anything that implements `IntoResponse`, mostly
/// `wasmeter_guest::Result<Response>`. A crate has exactly one handler.
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    export("handler", &arguments, item, |name| {
        format!(
            "const _: () = {{
                struct WasmeterHandler;
                impl ::wasmeter_guest::__private::Guest for WasmeterHandler {{
                    fn handle(
                        request: ::wasmeter_guest::__private::IncomingRequest,
                        out: ::wasmeter_guest::__private::ResponseOutparam,
                    ) {{
                        ::wasmeter_guest::__private::serve({name}, request, out)
                    }}
                }}
                ::wasmeter_guest::__private::export!(WasmeterHandler with_types_in ::wasmeter_guest::raw);
            }};"
        )
    })
}

/// Makes a function what `wasmeter deploy` runs once, when the function is pre-initialised (`pre-init = true` in the
/// manifest's `[build]`): what it leaves in statics, every call finds there, without its fuel.
///
/// The function takes and returns nothing, and may call nothing outside the component: no clock, no random numbers (so no
/// `HashMap` with the standard hasher), no environment, no standard streams, no model. A crate has at most one.
///
/// Where the component is deployed as it was built, nothing runs it: keep what it makes in a `OnceLock` or `LazyLock`, so
/// that the first use makes it otherwise.
#[proc_macro_attribute]
pub fn initialize(arguments: TokenStream, item: TokenStream) -> TokenStream {
    export("initialize", &arguments, item, |name| {
        format!(
            "const _: () = {{
                struct WasmeterInitialize;
                impl ::wasmeter_guest::initialize::Guest for WasmeterInitialize {{
                    fn wizer_initialize() {{
                        {name}()
                    }}
                }}
                ::wasmeter_guest::initialize::export!(
                    WasmeterInitialize with_types_in ::wasmeter_guest::initialize
                );
            }};"
        )
    })
}

/// The item, and after it what exports the function that it is.
fn export(
    attribute: &str,
    arguments: &TokenStream,
    item: TokenStream,
    export: impl FnOnce(String) -> String,
) -> TokenStream {
    if let Some(first) = arguments.clone().into_iter().next() {
        return error(&format!("#[{attribute}] takes no arguments"), first.span());
    }
    let name = match function_name(attribute, &item) {
        Ok(name) => name,
        Err((message, span)) => return error(&message, span),
    };
    let mut output = item;
    match export(name).parse::<TokenStream>() {
        Ok(tokens) => output.extend(tokens),
        Err(_) => {
            let message = format!("#[{attribute}] cannot export a function of this name");
            return error(&message, Span::call_site());
        }
    }
    output
}

/// Finds the identifier after `fn` at the top level of the item.
fn function_name(attribute: &str, item: &TokenStream) -> Result<String, (String, Span)> {
    let mut tokens = item.clone().into_iter();
    let mut last = Span::call_site();
    while let Some(token) = tokens.next() {
        last = token.span();
        let TokenTree::Ident(word) = &token else {
            continue;
        };
        match word.to_string().as_str() {
            "async" => {
                let message =
                    format!("#[{attribute}] is for no async function: calls to models and streams block");
                return Err((message, last));
            }
            "fn" => {
                if let Some(TokenTree::Ident(name)) = tokens.next() {
                    return Ok(name.to_string());
                }
            }
            "struct" | "enum" | "mod" | "impl" | "trait" => break,
            _ => {}
        }
    }
    Err((format!("#[{attribute}] belongs on a function"), last))
}

/// `::core::compile_error!(message)` at `span`.
fn error(message: &str, span: Span) -> TokenStream {
    let mut literal = Literal::string(message);
    literal.set_span(span);
    let mut bang = Punct::new('!', Spacing::Alone);
    bang.set_span(span);
    let argument = TokenStream::from(TokenTree::Literal(literal));
    let mut group = proc_macro::Group::new(proc_macro::Delimiter::Brace, argument);
    group.set_span(span);
    [TokenTree::Ident(Ident::new("compile_error", span)), TokenTree::Punct(bang), TokenTree::Group(group)]
        .into_iter()
        .collect()
}
