using Microsoft.CodeAnalysis;

namespace Ublkback.Tests.House;

/// <summary>One file of the tree, and the files whose types or members it names.</summary>
internal sealed class SourceFile(string project, string folder, SyntaxTree tree)
{
    public string Project => project;

    /// <summary>Below its project, with slashes; empty for a file of the project's own.</summary>
    public string Folder => folder;

    public SyntaxTree Tree => tree;

    public string Name { get; } = Path.GetFileNameWithoutExtension(tree.FilePath);

    /// <summary>Each file that it uses, with the first symbol that it uses there.</summary>
    public Dictionary<SourceFile, string> Uses { get; } = [];

    public override string ToString() => folder.Length == 0 ? Name : $"{folder}/{Name}";
}
