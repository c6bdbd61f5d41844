using Microsoft.CodeAnalysis.CSharp.Syntax;
using NUnit.Framework;

namespace Ublkback.Tests.House;

/// <summary>The order of the house: what may use what, and where a file lies. Prints the graph of folders.</summary>
public sealed class HouseTests
{
    private const int MaxFilesWithoutFolders = 15;
    private const int MaxCircle = 4;

    private static IEnumerable<string> Projects => HousePlan.Folders.Keys;

    [Test]
    public void A_project_with_many_files_has_folders()
    {
        foreach (IGrouping<string, SourceFile> project in SourceGraph.Tree.Files.GroupBy(file => file.Project))
            if (project.Count() > MaxFilesWithoutFolders)
                Assert.That(HousePlan.Folders, Does.ContainKey(project.Key), $"{project.Key}: {project.Count()} files");
    }

    [TestCaseSource(nameof(Projects))]
    public void The_folders_of_a_project_are_those_of_the_plan(string project) =>
        Assert.That(
            FilesOf(project).Select(file => file.Folder).Distinct(), Is.EquivalentTo(HousePlan.Folders[project]));

    [TestCaseSource(nameof(Projects))]
    public void A_folder_is_a_namespace(string project)
    {
        bool isFlat = HousePlan.OneNamespace.Contains(project);
        foreach (SourceFile file in FilesOf(project))
        {
            string below = isFlat || file.Folder.Length == 0 ? "" : "." + file.Folder.Replace('/', '.');
            string[] names =
            [
                .. file.Tree.GetRoot().DescendantNodes().OfType<BaseNamespaceDeclarationSyntax>()
                    .Select(declared => declared.Name.ToString()),
            ];
            bool declaresTypes = file.Tree.GetRoot().DescendantNodes().OfType<BaseTypeDeclarationSyntax>().Any();
            if (declaresTypes || names.Length > 0)
                Assert.That(names, Is.EqualTo(new[] { project + below }), $"{project}/{file}");
        }
    }

    [TestCaseSource(nameof(Projects))]
    public void A_file_uses_its_own_folder_and_those_before_it(string project)
    {
        string[] folders = HousePlan.Folders[project];
        string[] against =
        [
            .. from file in FilesOf(project)
               from use in file.Uses
               where use.Key.Project == project
                   && Array.IndexOf(folders, use.Key.Folder) > Array.IndexOf(folders, file.Folder)
               select $"{file} uses {use.Value} of {use.Key}",
        ];
        Assert.That(against, Is.Empty, () => string.Join('\n', against));
    }

    [TestCaseSource(nameof(Projects))]
    public void Circles_of_files_stay_inside_a_folder_and_small(string project)
    {
        foreach (List<SourceFile> circle in SourceGraph.FindCircles([.. FilesOf(project)]))
        {
            string files = $"{project}: {string.Join(' ', circle)}";
            Assert.That(circle.Select(file => file.Folder).Distinct().Count(), Is.EqualTo(1), files);
            Assert.That(circle, Has.Count.LessThanOrEqualTo(MaxCircle), files);
        }
    }

    [Test]
    public void The_graph_can_be_read()
    {
        SourceFile[] source = [.. SourceGraph.Tree.Files.Where(file => HousePlan.Rooms.Contains(file.Project))];
        int edges = source.Sum(file => file.Uses.Keys.Count(other => other.Project == file.Project));
        TestContext.Out.WriteLine(
            $"src: {source.Length} files, {source.Sum(file => file.Tree.GetText().Lines.Count)} lines, "
            + $"{edges} uses inside rooms");
        foreach (string room in HousePlan.Rooms)
        {
            SourceFile[] files = [.. FilesOf(room)];
            List<List<SourceFile>> circles = SourceGraph.FindCircles(files);
            TestContext.Out.WriteLine(
                $"{room}: {files.Length} files, {SourceGraph.Tree.CountPublicTypes(room)} public types, circles of "
                + (circles.Count == 0 ? "none" : string.Join(", ", circles.Select(circle => circle.Count))));
            foreach (IGrouping<string, SourceFile> folder in files.GroupBy(file => file.Folder).OrderBy(f => f.Key))
            {
                var uses = folder.SelectMany(file => file.Uses.Keys)
                    .Where(other => other.Project == room && other.Folder != folder.Key)
                    .GroupBy(other => other.Folder).OrderBy(other => other.Key)
                    .Select(other => $"{Shown(other.Key)} ({other.Count()})");
                TestContext.Out.WriteLine(
                    $"    {Shown(folder.Key)} ({folder.Count()} files) uses {string.Join(", ", uses)}");
            }
        }

        Assert.That(edges, Is.GreaterThan(source.Length), "the compiler found what the files use");
    }

    private static string Shown(string folder) => folder.Length == 0 ? "(own files)" : folder;

    private static IEnumerable<SourceFile> FilesOf(string project) =>
        SourceGraph.Tree.Files.Where(file => file.Project == project);
}
