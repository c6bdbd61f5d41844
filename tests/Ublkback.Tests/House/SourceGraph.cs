using System.Text.RegularExpressions;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;

namespace Ublkback.Tests.House;

/// <summary>
/// Which file uses which, as the compiler sees it: every project of the tree is compiled in memory, and every name in
/// it leads to the files that declare what it names. Not counted are <c>nameof</c>, documentation, and what source
/// generators add.
/// </summary>
/// <remarks>
/// Own code, not ArchUnitNET: that reads assemblies, in which constants have no origin and types have no files, and its
/// slices know circles but no order.
/// </remarks>
internal sealed partial class SourceGraph
{
    private static readonly CSharpParseOptions Parsing = new(LanguageVersion.Latest, preprocessorSymbols: ["DEBUG"]);

    private readonly Dictionary<string, CSharpCompilation> _compilations = [];
    private readonly Dictionary<string, SourceFile> _files = [];
    private readonly MetadataReference[] _packages =
    [
        .. ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!).Split(':')
            .Where(path => !Path.GetFileName(path).StartsWith("Ublkback", StringComparison.Ordinal))
            .Select(path => MetadataReference.CreateFromFile(path)),
    ];

    private static readonly Lazy<SourceGraph> OfTree = new(() => Read(
        Repository.SourceFiles("*.csproj").Concat(
            [TestProject("tests/Ublkback.Tests"), TestProject("tests/Ublkback.HostTests")])));

    private SourceGraph()
    {
    }

    /// <summary>The graph of all projects of the tree, read once.</summary>
    public static SourceGraph Tree => OfTree.Value;

    public IReadOnlyCollection<SourceFile> Files => _files.Values;

    public IEnumerable<CSharpCompilation> Compilations => _compilations.Values;

    public static SourceGraph Read(IEnumerable<string> projects)
    {
        SourceGraph graph = new();
        foreach (string project in projects) graph.Compile(project);
        foreach (CSharpCompilation compilation in graph._compilations.Values)
        {
            foreach (SyntaxTree tree in compilation.SyntaxTrees)
                if (graph._files.TryGetValue(tree.FilePath, out SourceFile? file))
                    graph.Resolve(file, compilation.GetSemanticModel(tree));
        }

        return graph;
    }

    /// <summary>Compiles a text that uses .NET only, as a file of a project would be.</summary>
    public CSharpCompilation CompileText(string text) => CSharpCompilation.Create(
        "Text", [CSharpSyntaxTree.ParseText(text, Parsing), CSharpSyntaxTree.ParseText(ImplicitUsings, Parsing)],
        _packages, new CSharpCompilationOptions(OutputKind.DynamicallyLinkedLibrary, allowUnsafe: true));

    public int CountPublicTypes(string project)
    {
        static IEnumerable<INamedTypeSymbol> Types(INamespaceSymbol space) =>
            space.GetTypeMembers().Concat(space.GetNamespaceMembers().SelectMany(Types));
        return Types(_compilations[project].Assembly.GlobalNamespace)
            .Count(type => type.DeclaredAccessibility == Accessibility.Public);
    }

    /// <summary>Finds the circles of more than one file among files: Tarjan's strongly connected components.</summary>
    public static List<List<SourceFile>> FindCircles(IReadOnlyCollection<SourceFile> members)
    {
        List<List<SourceFile>> circles = [];
        HashSet<SourceFile> among = [.. members], open = [];
        Dictionary<SourceFile, int> order = [], low = [];
        Stack<SourceFile> path = [];
        foreach (SourceFile file in members)
            if (!order.ContainsKey(file))
                Visit(file);
        return circles;

        void Visit(SourceFile file)
        {
            order[file] = low[file] = order.Count;
            path.Push(file);
            open.Add(file);
            foreach (SourceFile next in file.Uses.Keys.Where(among.Contains))
            {
                if (!order.ContainsKey(next)) Visit(next);
                if (open.Contains(next)) low[file] = Math.Min(low[file], low[next]);
            }

            if (low[file] != order[file]) return;
            List<SourceFile> circle = [];
            do
            {
                circle.Add(path.Pop());
                open.Remove(circle[^1]);
            }
            while (circle[^1] != file);
            if (circle.Count > 1) circles.Add(circle);
        }
    }

    private CSharpCompilation Compile(string project)
    {
        string name = Path.GetFileNameWithoutExtension(project), folder = Path.GetDirectoryName(project)!;
        if (_compilations.TryGetValue(name, out CSharpCompilation? known)) return known;
        string text = File.ReadAllText(project);
        MetadataReference[] rooms =
        [
            .. Reference().Matches(text)
                .Where(match => !match.Value.Contains("ReferenceOutputAssembly", StringComparison.Ordinal))
                .Select(match => Compile(Path.GetFullPath(Path.Combine(folder, match.Groups[1].Value)))
                    .ToMetadataReference()),
        ];
        SyntaxTree[] trees =
        [
            .. Repository.Below(folder, "*.cs").Select(file =>
                CSharpSyntaxTree.ParseText(File.ReadAllText(file), Parsing, file)),
        ];
        foreach (SyntaxTree tree in trees)
        {
            string below = Path.GetDirectoryName(Path.GetRelativePath(folder, tree.FilePath))!;
            _files[tree.FilePath] = new SourceFile(name, below, tree);
        }

        bool isProgram = text.Contains("<OutputType>Exe", StringComparison.Ordinal);
        return _compilations[name] = CSharpCompilation.Create(
            name,
            [.. trees, .. Linked(project), CSharpSyntaxTree.ParseText(ImplicitUsings, Parsing), .. Friends(text)],
            [.. _packages, .. rooms],
            new CSharpCompilationOptions(
                isProgram ? OutputKind.ConsoleApplication : OutputKind.DynamicallyLinkedLibrary,
                allowUnsafe: true, nullableContextOptions: NullableContextOptions.Enable));
    }

    // What Directory.Build.props compiles into every room.
    private static IEnumerable<SyntaxTree> Linked(string project)
    {
        string folder = Path.Combine(Repository.Root, "src"), file = Path.Combine(folder, "DataPathAttribute.cs");
        return project.StartsWith(folder + '/', StringComparison.Ordinal)
            ? [CSharpSyntaxTree.ParseText(File.ReadAllText(file), Parsing, file)]
            : [];
    }

    private static string TestProject(string folder) =>
        Path.Combine(Repository.Root, folder, Path.GetFileName(folder) + ".csproj");

    private static IEnumerable<SyntaxTree> Friends(string project) => Friend().Matches(project).Select(match =>
        CSharpSyntaxTree.ParseText(
            "[assembly: System.Runtime.CompilerServices.InternalsVisibleTo(\"" + match.Groups[1].Value + "\")]",
            Parsing));

    private void Resolve(SourceFile file, SemanticModel model)
    {
        foreach (SyntaxNode node in file.Tree.GetRoot().DescendantNodes(node => !IsNameof(node)))
        {
            if (IsNameof(node)) continue;
            if (node is ExpressionSyntax and not IdentifierNameSyntax { IsVar: true }
                or AttributeSyntax or ConstructorInitializerSyntax or PrimaryConstructorBaseTypeSyntax)
                Add(file, model.GetSymbolInfo(node));
            if (node is ExpressionSyntax expression
                && model.GetConversion(expression) is { IsUserDefined: true } conversion)
                Add(file, conversion.MethodSymbol);
            if (node is CommonForEachStatementSyntax loop)
                Add(file, model.GetForEachStatementInfo(loop).GetEnumeratorMethod);
            if (node is AwaitExpressionSyntax wait) Add(file, model.GetAwaitExpressionInfo(wait).GetAwaiterMethod);
            if (node is AssignmentExpressionSyntax assignment)
                Add(file, model.GetDeconstructionInfo(assignment).Method);
            if (node is ForEachVariableStatementSyntax parts) Add(file, model.GetDeconstructionInfo(parts).Method);
            if (node is ExpressionSyntax element && node.Parent.IsKind(SyntaxKind.CollectionInitializerExpression))
                Add(file, model.GetCollectionInitializerSymbolInfo(element));
            if (node is QueryClauseSyntax clause)
            {
                QueryClauseInfo info = model.GetQueryClauseInfo(clause);
                Add(file, info.CastInfo);
                Add(file, info.OperationInfo);
            }

            if (node is SelectOrGroupClauseSyntax or OrderingSyntax) Add(file, model.GetSymbolInfo(node));
            if (node is TypeDeclarationSyntax declared) Add(file, model.GetDeclaredSymbol(declared)); // its other parts
        }
    }

    // Where generated code is missing, the compiler has candidates only.
    private void Add(SourceFile file, SymbolInfo info)
    {
        Add(file, info.Symbol);
        foreach (ISymbol candidate in info.CandidateSymbols) Add(file, candidate);
    }

    private void Add(SourceFile file, ISymbol? symbol)
    {
        if (symbol is IMethodSymbol { ReducedFrom: { } extension }) symbol = extension;
        symbol = symbol?.OriginalDefinition;
        if (symbol is IMethodSymbol { MethodKind: MethodKind.LocalFunction }
            || symbol is not (INamedTypeSymbol or IMethodSymbol or IPropertySymbol or IFieldSymbol or IEventSymbol))
            return;
        var places = symbol.DeclaringSyntaxReferences.IsEmpty && symbol.ContainingType is { } type
            ? type.DeclaringSyntaxReferences
            : symbol.DeclaringSyntaxReferences;
        foreach (SyntaxReference place in places)
            if (_files.TryGetValue(place.SyntaxTree.FilePath, out SourceFile? target) && target != file)
                file.Uses.TryAdd(target, symbol is INamedTypeSymbol ? symbol.Name
                    : $"{symbol.ContainingType?.Name}.{symbol.Name}");
    }

    private static bool IsNameof(SyntaxNode node) =>
        node is InvocationExpressionSyntax { Expression: IdentifierNameSyntax { Identifier.Text: "nameof" } };

    private const string ImplicitUsings = """
        global using System; global using System.Collections.Generic; global using System.IO; global using System.Linq;
        global using System.Net.Http; global using System.Threading; global using System.Threading.Tasks;
        """;

    [GeneratedRegex("ProjectReference Include=\"([^\"]+)\"[^>]*>")]
    private static partial Regex Reference();

    [GeneratedRegex("InternalsVisibleTo Include=\"([^\"]+)\"")]
    private static partial Regex Friend();
}
