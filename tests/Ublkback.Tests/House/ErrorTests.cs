using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;
using NUnit.Framework;

namespace Ublkback.Tests.House;

/// <summary>Rules for the exceptions that the program throws.</summary>
public sealed class ErrorTests
{
    private static readonly string[] Remedies =
    [
        "add", "attach", "check", "choose", "close", "compact", "create", "delete", "detach", "end", "enlarge", "free",
        "give", "install", "leave", "load", "make", "name", "open", "put", "remove", "rename", "repair", "restart",
        "restore", "resume", "run", "say", "see", "send", "set", "shut", "start", "stop", "try", "update", "upgrade",
        "use", "wait", "write",
    ];

    [Test]
    public void An_exception_thrown_for_another_one_keeps_it_as_its_cause()
    {
        string[] faults =
        [
            .. from created in Thrown()
               let caught = created.Ancestors().OfType<CatchClauseSyntax>().FirstOrDefault()
               let name = caught?.Declaration?.Identifier.ValueText
               where !string.IsNullOrEmpty(name)
               where created.ArgumentList?.Arguments.Any(argument => argument.ToString() == name) != true
               select Where(created),
        ];
        Assert.That(faults, Is.Empty);
    }

    // The program, the control socket and the life of a disk show such errors; what is between leaves them alone.
    [Test]
    public void A_command_does_not_catch_a_users_error_to_throw_another()
    {
        string[] faults =
        [
            .. from created in Thrown()
               where created.SyntaxTree.FilePath.Contains("/src/Ublkback/", StringComparison.Ordinal)
               let caught = created.Ancestors().OfType<CatchClauseSyntax>().FirstOrDefault()
               let what = $"{caught?.Declaration?.Type} {caught?.Filter}"
               where UserErrors.Any(what.Contains)
               select Where(created),
        ];
        Assert.That(faults, Is.Empty);
    }

    [Test]
    public void A_remedy_is_an_argument_of_its_own()
    {
        string[] faults =
        [
            .. from created in Thrown()
               where UserErrors.Contains(created.Type.ToString())
               let problem = created.ArgumentList!.Arguments.Count > 0 ? Text(created.ArgumentList.Arguments[0]) : ""
               where Remedies.Any(verb => problem.Contains($": {verb} ", StringComparison.Ordinal)
                   || problem.Contains($"; {verb} ", StringComparison.Ordinal))
               select $"{Where(created)} {problem}",
        ];
        Assert.That(faults, Is.Empty);
    }

    private static readonly string[] UserErrors =
    [
        "UserException", "TargetException", "CommandException", "ImageInUseException", "RefusedMessageException",
    ];

    private static IEnumerable<BaseObjectCreationExpressionSyntax> All() =>
        Repository.SourceFiles("*.cs")
            .Select(file => CSharpSyntaxTree.ParseText(File.ReadAllText(file), path: file))
            .SelectMany(tree => tree.GetRoot().DescendantNodes().OfType<BaseObjectCreationExpressionSyntax>());

    private static IEnumerable<ObjectCreationExpressionSyntax> Thrown() =>
        All().OfType<ObjectCreationExpressionSyntax>()
            .Where(created => created.Type.ToString().EndsWith("Exception", StringComparison.Ordinal))
            .Where(created => created.Ancestors().TakeWhile(above => above is not LambdaExpressionSyntax)
                .Any(above => above is ThrowStatementSyntax or ThrowExpressionSyntax));

    // The literal parts of a message; a value is one space.
    private static string Text(ArgumentSyntax argument) =>
        string.Concat(argument.DescendantTokens().Select(token => token.Kind() switch
        {
            SyntaxKind.StringLiteralToken or SyntaxKind.InterpolatedStringTextToken => token.ValueText,
            SyntaxKind.OpenBraceToken => " ",
            _ => "",
        }));

    private static string Where(SyntaxNode node)
    {
        FileLinePositionSpan place = node.GetLocation().GetLineSpan();
        return $"{Path.GetRelativePath(Repository.Root, place.Path)}:{place.StartLinePosition.Line + 1}";
    }
}
